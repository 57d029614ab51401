"""Rows drawn from templates: row i depends on the seed and i alone, so that a larger `count` only adds rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from flywheel.errors import RecipeError
from flywheel.recipe_sources import SyntheticSource
from flywheel.record import Outcome, Record, content, provenance_id
from flywheel.sources.listing import READ, Entry
from flywheel.sources.slots import Grammar, Row

BLOCK = 10_000
"""Rows of one entry."""
WRITABLE = ("text", "prompt", "completion", "chosen", "rejected", "label", "group")
"""Columns that hold plain text."""


def reader(source: SyntheticSource, name: str, root: Path | None = None) -> SyntheticReader:
    """The reader of a source of type `synthetic`. Raises RecipeError for templates that cannot be filled."""
    return SyntheticReader(source, name)


class SyntheticReader:
    """`count` rows in entries `rows-00000`, `rows-00001`, ... of BLOCK rows."""

    def __init__(self, source: SyntheticSource, name: str) -> None:
        self.source, self.name = source, name
        self.grammar = Grammar(source.slots)
        if not source.templates or not all(source.templates.values()):
            raise _refused("no template", "at least one column with one text")
        for column, templates in source.templates.items():
            if column not in WRITABLE:
                raise _refused(f"the column {column}", f"columns that hold text: {', '.join(WRITABLE)}")
            self.grammar.check(templates, f"templates.{column}")

    def entries(self) -> list[Entry]:
        """Their identity is all that their rows depend on; the whole entries of a smaller `count` keep theirs."""
        config = self.source.model_dump(mode="json", include={"templates", "slots", "seed"})
        blocks = -(-self.source.count // BLOCK)
        found = []
        for block in range(blocks):
            name, rows = f"rows-{block:05d}", self._rows(block)
            identity = json.dumps([config, rows.start, rows.stop], sort_keys=True)
            found.append(Entry(Path(name), name, READ, identity=identity))
        return found

    def read(self, entry: Entry) -> Iterator[Outcome]:
        for number in self._rows(int(entry.name.removeprefix("rows-"))):
            yield self._row(entry.name, number)

    def _rows(self, block: int) -> range:
        return range(block * BLOCK, min((block + 1) * BLOCK, self.source.count))

    def _row(self, path: str, number: int) -> Record:
        random = Random(f"{self.source.seed}:{number}")
        row = Row(self.grammar, random)
        position = random.randrange(len(next(iter(self.source.templates.values()))))
        cells = {column: row.fill(templates[position]) for column, templates in self.source.templates.items()}
        group = cells.pop("group", str(number))
        record = Record(id="", **cells)  # type: ignore[arg-type]
        said = content(record)
        origin = {
            "source": self.name,
            "path": f"{path}:{number}",
            "license": self.source.license,
            "size": len(said),
            "group": group,
        }
        return record.with_fields(id=provenance_id(self.name, str(number), said), origin=origin)


def _refused(found: str, expected: str) -> RecipeError:
    return RecipeError(
        "templates of a synthetic source", found=found, expected=expected, remedy="correct `templates` of the source"
    )
