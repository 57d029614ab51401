"""What is known of pictures and recordings from what stands around them, in this order:

metadata.csv, .jsonl, .parquet   in its directory or one above (`flywheel.sources.media_metadata`)
name.txt                         beside it: its text
`pattern`                        the named groups of the source's expression on the file's name
directory                        its name is the label, where there is none of the above
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flywheel.errors import RecipeError
from flywheel.media import Undecodable
from flywheel.sources.media_metadata import TABLES, Described, read_table
from flywheel.sources.parsed import MAX_CELL, Bad

FILLED = ("label", "text", "group")
"""What the groups of `pattern` may fill."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A picture or a recording."""

    path: Path
    """Where its bytes are."""
    name: str
    """Relative to its source or, where it was packed, to its archive; with forward slashes."""
    place: str
    """Where it stands in its source, for people: `cats/1.png`, `pictures.zip:cats/1.png`."""
    label: str
    """The name of the directory that it stands in; empty for the source itself."""
    text: Path | None
    """The `name.txt` beside it."""


class Notes:
    """What is known of the files of one directory, with all below it, or of one archive."""

    def __init__(self, find: Callable[[str], Path | None], pattern: re.Pattern[str] | None) -> None:
        """`find` says where the table of a name lies, if there is one."""
        self._find, self._pattern = find, pattern
        self._tables: dict[str, dict[str, list[Mapping[str, str]]] | None] = {}

    def of(self, file: MediaFile) -> list[Mapping[str, str]]:
        """Cells for each row of a file. Raises Undecodable where something should be known and is not."""
        tables = [table for at in lineage(directory(file.name)) if (table := self._table(at)) is not None]
        rows = [row for table in tables for row in table.get(file.name, ())]
        text = _read_text(file.text)
        matched = self._pattern.fullmatch(PurePosixPath(file.name).stem) if self._pattern else None
        groups = {key: value for key, value in matched.groupdict().items() if value} if matched else {}
        if rows:
            return [{**groups, **text, **row} for row in rows]
        if text or matched:
            return [{**groups, **text}]
        if self._pattern:
            raise Undecodable("no_match", f"of {self._pattern.pattern}")
        if tables:
            raise Undecodable("no_metadata", "its name is in no table")
        return [{"label": file.label} if file.label else {}]

    def _table(self, at: str) -> dict[str, list[Mapping[str, str]]] | None:
        """Rows by file of the tables in a directory; None where there is no table."""
        if at not in self._tables:
            paths = [path for name in within(at, TABLES) if (path := self._find(name)) is not None]
            found: defaultdict[str, list[Mapping[str, str]]] = defaultdict(list)
            for row in (row for path in paths for row in read_table(path, at)):
                if isinstance(row, Described):
                    found[row.file].append(row.cells)
            self._tables[at] = dict(found) if paths else None
        return self._tables[at]


def unmet(path: Path, name: str, names: Collection[str]) -> Iterator[Bad]:
    """The rows of the table `name` that lead to none of the files `names`, or could not be read."""
    for row in read_table(path, directory(name)):
        if not isinstance(row, Described):
            yield row
        elif row.file not in names:
            yield Bad(row.position, "missing_file", row.file[:200])


def compiled(written: str) -> re.Pattern[str]:
    """The expression of a source. Raises RecipeError where it has no groups, or others than FILLED."""
    try:
        pattern = re.compile(written)
        found = ", ".join(pattern.groupindex) or "no named group"
    except re.error as error:
        found, pattern = str(error), re.compile("")
    if not pattern.groupindex or not pattern.groupindex.keys() <= set(FILLED):
        raise RecipeError(
            f"pattern {written}",
            found=found,
            expected=f"a regular expression with groups named {', '.join(FILLED)}",
            remedy=r"write it like `(?P<label>\d)_(?P<group>[a-z]+)_\d+`",
        )
    return pattern


def _read_text(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    if path.stat().st_size > MAX_CELL:
        raise Undecodable("too_long", "the text beside it")
    try:
        return {"text": path.read_text(encoding="utf-8-sig").strip()}
    except UnicodeDecodeError as error:
        raise Undecodable("undecodable", f"the text beside it: {error}") from error


# ---------------------------------------------------------------- names


def is_table(name: str) -> bool:
    return PurePosixPath(name).name in TABLES


def is_aid(name: str) -> bool:
    """Whether a file may say something of others: a table or a text."""
    hidden = PurePosixPath(name).name.startswith(".")
    return not hidden and (is_table(name) or name.endswith(".txt"))


def stem(name: str) -> str:
    """A name, with its directories, without its ending."""
    return str(PurePosixPath(name).with_suffix(""))


def directory(name: str) -> str:
    """The directory of a file relative to the source; empty for the source itself."""
    return name.rpartition("/")[0]


def lineage(at: str) -> list[str]:
    """A directory and those above it, the nearest first, the source's own last."""
    parts = at.split("/") if at else []
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def within(at: str, names: Iterable[str]) -> list[str]:
    return [f"{at}/{name}" if at else name for name in names]
