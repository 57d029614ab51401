"""Sources of type `files`, and the snapshots of sources that were fetched: documents, tables, and archives of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flywheel.recipe_sources import FilesSource, RemoteSource, Source, TableSource
from flywheel.record import Dropped, Outcome, Outcomes, Quarantined, Record, content, provenance_id
from flywheel.sources import columns, formats
from flywheel.sources.listing import READ, Entry, judged_by, listing, missing, nothing, printable
from flywheel.sources.parsed import Bad, Found, Options


def reader(source: Source, name: str, root: Path | None) -> FilesReader:
    """The reader of files on the disk, or of the snapshot in `root`."""
    return FilesReader(source, name, root)


class FilesReader:
    """One row for each document, or for each row of a table; documents in one file share its group.

    Dropped: `excluded` and `empty`. Quarantined: what a parser calls bad (`undecodable`, `bad_json`, `bomb`, ...), what
    has not the columns (`missing_column`, `not_text`, ...), `unreadable` and `outside_root`.
    """

    def __init__(self, source: Source, name: str, root: Path | None) -> None:
        self.source, self.name = source, name
        self.options = Options(source.encoding if isinstance(source, FilesSource) else "utf-8")
        self.columns = source.columns if isinstance(source, TableSource) else {}
        self.written = str(getattr(source, "path", name))
        self.root = root or Path(self.written).expanduser().resolve()

    def entries(self) -> list[Entry]:
        if self.root.is_dir():
            found = listing(self.root, self._judge)
        elif self.root.is_file():
            known = formats.parser(self.root.name) is not None
            found = [Entry(self.root, printable(self.root.name), READ)] if known else []
        else:
            raise missing(self.written, self.root, "a file or a directory")
        if not found and not isinstance(self.source, RemoteSource):  # a query may well have no rows
            raise nothing(self.written, ", ".join(formats.FORMATS))
        return found

    def _judge(self, file: str) -> str | None:
        """Files of unknown formats are no concern of ours."""
        if formats.parser(file) is None:
            return None
        if isinstance(self.source, FilesSource):
            return judged_by(self.source.include, self.source.exclude)(file)
        return READ

    def read(self, entry: Entry) -> Outcomes:
        parse = formats.parser(entry.name)
        assert parse is not None  # entries() lists no other
        for found in parse(entry.path, self.options):
            yield self._row(entry.name, found)

    def _row(self, file: str, found: Found | Bad) -> Outcome:
        place = f"{file}:{found.position}" if found.position else file
        if isinstance(found, Bad):
            identity = provenance_id(self.name, place, found.detail.encode(errors="backslashreplace"))
            return _left_out(found.reason)(identity, found.reason, place, self.name, found.detail)
        fields, reason, detail = columns.record_fields(found.cells, self.columns)
        group = fields.pop("group", None) or found.origin.get("group") or place
        row = Record("", **fields)
        try:
            data = content(row)
        except UnicodeEncodeError:
            data, reason = repr(fields).encode(errors="backslashreplace"), reason or "undecodable"
        identity = provenance_id(self.name, place, data)
        if reason:
            return _left_out(reason)(identity, reason, place, self.name, detail)
        return row.with_fields(id=identity, origin=self._origin(found.origin, place, len(data), group))

    def _origin(self, found: Any, place: str, size: int, group: str) -> dict[str, Any]:
        own = {"source": self.name, "path": place, "license": self.source.license, "size": size, "group": str(group)}
        return {**found, **own}


def _left_out(reason: str) -> type[Dropped] | type[Quarantined]:
    """Nothing is wrong with what is empty."""
    return Dropped if reason == "empty" else Quarantined
