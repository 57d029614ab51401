"""Record: one row of any modality, with its provenance id; and the Parquet files that hold rows.

A reader or a processing step yields `Record`s and rows that it left out, `Dropped` or `Quarantined`; every row it was
given comes out as exactly one of them, so that kept + dropped + quarantined = read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

COLUMNS = ("text", "prompt", "completion", "messages", "chosen", "rejected", "image", "audio", "label")
"""The standard columns, in the ecosystem's own words (TRL dataset types; `datasets` image and audio features)."""
STRUCTURED = ("messages", "chosen", "rejected")
"""Columns that Parquet files hold as JSON."""
BATCH, BATCH_BYTES = 1_024, 16 << 20
"""Rows, and bytes of content, that are held in memory at a time while a file is read or written."""

FACTS = "flywheel"
"""Key of the Parquet metadata that counts the rows of a file."""

_ORIGIN = json.JSONEncoder(sort_keys=True).encode

Messages = Sequence[Mapping[str, str]]
"""A conversation: `{"role": "user" | "assistant" | "system" | "tool", "content": text}`."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row. `id` = hash(source identity, position, content); it survives every later step."""

    id: str
    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: Messages | None = None
    chosen: str | Messages | None = None
    rejected: str | Messages | None = None
    image: bytes | None = None
    """An encoded picture (PNG, JPEG, ...)."""
    audio: bytes | None = None
    """An encoded recording (WAV, FLAC, ...)."""
    label: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the row came from: `source`, `path`, `license`, `size` in bytes, `group` (what must not be split); of a row
    that was made from another one `parent`, the id of that."""

    def with_fields(self, **changes: Any) -> Record:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is not kept, and why."""

    id: str
    reason: str
    """A short snake_case word that is counted."""
    path: str = ""
    """Where it stood, relative to its source: `table.csv:17`."""
    source: str = ""
    detail: str = ""
    """What was wrong with this very row, for people."""


class Dropped(LeftOut):
    """Left out by a rule of the recipe."""

    __slots__ = ()


class Quarantined(LeftOut):
    """Unusable as it is: set aside, so that somebody may look."""

    __slots__ = ()


Outcome = Record | Dropped | Quarantined
Outcomes = Iterator[Outcome]


def drop(row: Record, reason: str, detail: str = "") -> Dropped:
    """Leave a row out by a rule."""
    return Dropped(row.id, reason, str(row.origin.get("path", "")), str(row.origin.get("source", "")), detail)


def quarantine(row: Record, reason: str, detail: str = "") -> Quarantined:
    """Set an unusable row aside."""
    return Quarantined(row.id, reason, str(row.origin.get("path", "")), str(row.origin.get("source", "")), detail)


def provenance_id(source: str, position: str, content: bytes) -> str:
    """16 hex digits that name a row: the same bytes at the same place of the same source keep their id."""
    digest = hashlib.sha256()
    for part in (source.encode(), position.encode(), content):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


def texts(row: Record) -> list[str]:
    """Every text of a row, the contents of its messages included, in the order of the columns."""
    found = [part for part in (row.text, row.prompt, row.completion) if part is not None]
    for value in (row.messages, row.chosen, row.rejected):
        if isinstance(value, str):
            found.append(value)
        elif value is not None:
            found += [message["content"] for message in value]
    return found


def map_texts(row: Record, change: Callable[[str], str]) -> Record:
    """The row with every text changed, the contents of its messages included; the same row where nothing changed."""
    changes: dict[str, Any] = {}
    for name in COLUMNS[:6]:
        value = getattr(row, name)
        if value is None:
            continue
        new: str | list[dict[str, str]]
        if isinstance(value, str):
            new = change(value)
        else:
            new = [{**message, "content": change(message["content"])} for message in value]
        if new != value:
            changes[name] = new
    return row.with_fields(**changes) if changes else row


def content(record: Record) -> bytes:
    """What a row says, label and origin aside: equal bytes mean the same row, and their number is its size."""
    parts = [text.encode() for text in (record.text, record.prompt, record.completion) if text is not None]
    dialogues = (record.messages, record.chosen, record.rejected)
    parts += [_encoded(value).encode() for value in dialogues if value is not None]
    parts += [media for media in (record.image, record.audio) if media is not None]
    return parts[0] if len(parts) == 1 else b"\0".join(parts)


def _encoded(value: str | Messages) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


# ---------------------------------------------------------------- files


def write_rows(path: Path, rows: Iterable[Record]) -> int:
    """Write rows as Parquet with a fixed schema, so that equal rows give equal bytes. Returns the number of rows.

    Holds BATCH rows in memory at a time.
    """
    with RowsWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return writer.count


class RowsWriter:
    """A Parquet file of rows that is being written; whole once it is closed."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.count, self.bytes, self._waiting, self._held = 0, 0, list[Record](), 0
        self._sources: Counter[str] = Counter()
        self._file = pq.ParquetWriter(path, schema(), compression="zstd", compression_level=1)

    def __enter__(self) -> RowsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._flush()
        facts = {"rows": self.count, "bytes": self.bytes, "sources": dict(self._sources)}
        self._file.add_key_value_metadata({FACTS: json.dumps(facts)})
        self._file.close()

    def write(self, row: Record) -> None:
        size = len(content(row))
        self.count += 1
        self.bytes += size
        self._sources[str(row.origin.get("source", ""))] += 1
        self._held += size
        self._waiting.append(row)
        if len(self._waiting) == BATCH or self._held > BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_batch(_batch(self._waiting))
            self._waiting.clear()
            self._held = 0


def read_rows(path: Path) -> Iterator[Record]:
    """Rows of a Parquet file, or of all Parquet files of a directory by name, in the order of writing."""
    for file in parts(path):
        for batch in _batches(file):
            yield from from_batch(batch)


def read_some(file: Path, wanted: NDArray[np.bool_]) -> Iterator[Record]:
    """The wanted rows of a Parquet file; `wanted` has an entry for each of its rows."""
    start = 0
    for batch in _batches(file):
        part = batch.filter(wanted[start : (start := start + batch.num_rows)])
        if part.num_rows:
            yield from from_batch(part)


def facts(path: Path) -> dict[str, Any]:
    """What the writer of a file of rows noted at its end: `rows`, `bytes` of content, rows by source (`sources`)."""
    import pyarrow.parquet as pq

    found: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[FACTS.encode()])
    return found


def parts(path: Path) -> list[Path]:
    """The Parquet files that hold the rows of a path: itself, or those of a directory in the order of their names."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def located(directory: Path, name: str) -> Path | None:
    """The rows called `name` in a directory: `name/` with several files, `name.parquet`, or None."""
    return next((p for p in (directory / name, directory / f"{name}.parquet") if p.exists()), None)


def schema() -> pa.Schema:
    """The columns of a file of rows."""
    import pyarrow as pa

    kinds = {"image": pa.binary(), "audio": pa.binary()}
    return pa.schema([("id", pa.string()), *((c, kinds.get(c, pa.string())) for c in COLUMNS), ("origin", pa.string())])


def _batch(rows: Sequence[Record]) -> pa.RecordBatch:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in ("id", *COLUMNS)}
    for name in STRUCTURED:
        columns[name] = [None if value is None else _encoded(value) for value in columns[name]]
    columns["origin"] = [_ORIGIN(dict(row.origin)) for row in rows]
    return pa.RecordBatch.from_pydict(columns, schema=schema())


def from_batch(batch: pa.RecordBatch) -> Iterator[Record]:
    """The rows of some lines of a file of rows."""
    columns = {
        name: column.to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if column.null_count < len(column)
    }
    for name in STRUCTURED:
        if name in columns:
            columns[name] = [None if value is None else json.loads(value) for value in columns[name]]
    columns["origin"] = [json.loads(value) for value in columns["origin"]]
    names = tuple(columns)
    for values in zip(*columns.values(), strict=True):
        yield Record(**dict(zip(names, values, strict=True)))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:  # which would hold the whole file
        yield from file.iter_batches(BATCH, use_threads=False)
