"""Sources: where rows come from. `inputs` says which bytes would be read, `ingest` reads them.

A reader turns every file, line or table row that it meets into exactly one `Record` or `Dropped`, so that
kept + dropped = read. Rows come in the order of the sources, and within one in the order of file names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from flywheel.errors import SourceError
from flywheel.recipe import Source
from flywheel.record import Dropped, Record, content, count_reasons, write_dropped, write_rows

READERS = {
    "code": "flywheel.sources.files",
    "text": "flywheel.sources.files",
    "sklearn": "flywheel.sources.sklearn",
}
"""Source type → the module whose `reader(source, name)` reads it."""


class Reader(Protocol):
    """What a source module offers for one source of a recipe."""

    def inputs(self) -> dict[str, str]:
        """Name → sha256 of every file that `read` would read, and of the list itself; names start with the source's."""

    def read(self) -> Iterator[Record | Dropped]:
        """One Record or Dropped for each row that was met."""


def inputs(sources: Sequence[Source]) -> dict[str, str]:
    """Name → sha256 of everything that `ingest` would read. Modification times play no part.

    Raises SourceError where a source is missing or offers no file at all.
    """
    return {name: digest for reader in _readers(sources).values() for name, digest in reader.inputs().items()}


def ingest(sources: Sequence[Source], out: Path) -> dict[str, Any]:
    """Read all sources into `out`/rows.parquet, and what was left out, with reasons, into `out`/dropped.json.

    Returns read, kept, dropped by reason, bytes of kept content, and the share of each source.
    Raises SourceError where nothing is kept.
    """
    kept: list[Record] = []
    dropped: list[Dropped] = []
    shares: list[dict[str, Any]] = []
    for source, (name, reader) in zip(sources, _readers(sources).items(), strict=True):
        before = len(kept)
        for row in reader.read():
            if isinstance(row, Record):
                kept.append(row)
            else:
                dropped.append(row)
        shares.append({"type": source.type, "path": name, "license": source.license, "kept": len(kept) - before})
    reasons = count_reasons(dropped)
    if not kept:
        raise SourceError(
            f"sources {', '.join(str(share['path']) for share in shares)}",
            found=f"{len(dropped)} rows, none of them usable: {json.dumps(reasons)}",
            expected="at least one usable row",
            remedy="look at the reasons; for missing_column, set `column` to the column that holds the text",
        )
    write_rows(out / "rows.parquet", kept)
    write_dropped(out / "dropped.json", dropped)
    return {
        "read": len(kept) + len(dropped),
        "kept": len(kept),
        "dropped": reasons,
        "bytes": sum(len(content(row)) for row in kept),
        "sources": shares,
    }


def _readers(sources: Sequence[Source]) -> dict[str, Reader]:
    """A reader for each source under a name that is free of machine paths: `stdlib`, `plays.txt`, `plays.txt#2`."""
    readers: dict[str, Reader] = {}
    for source in sources:
        path = Path(getattr(source, "path", source.type)).expanduser()
        base = name = path.name or path.resolve().name or "root"
        number = 1
        while name in readers:
            number += 1
            name = f"{base}#{number}"
        readers[name] = cast(Reader, import_module(READERS[source.type]).reader(source, name))
    return readers
