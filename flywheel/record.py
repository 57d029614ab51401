"""Record: one row of any modality, with its provenance id; and the Parquet files that hold rows.

A reader or a processing step yields `Record`s and `Dropped`s; every row it was given comes out as exactly one of them,
so that kept + dropped = read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

# The standard columns, in the ecosystem's own words (TRL dataset types; `datasets` image and audio features).
COLUMNS = ("text", "prompt", "completion", "image", "audio", "label")


@dataclass(frozen=True, slots=True)
class Record:
    """One row. `id` = hash(source identity, position, content); it survives every later step."""

    id: str
    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    image: bytes | None = None
    """An encoded picture (PNG or JPEG)."""
    audio: bytes | None = None
    """An encoded recording (WAV or FLAC)."""
    label: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the row came from: `source`, `path`, `license`, `size` in bytes, `group` (what must not be split)."""

    def with_fields(self, **changes: Any) -> Record:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was left out, and why. `reason` is a short snake_case word that is counted."""

    id: str
    reason: str
    path: str = ""
    """The file it came from, relative to its source."""


def provenance_id(source: str, position: str, content: bytes) -> str:
    """16 hex digits that name a row: the same bytes at the same place of the same source keep their id."""
    digest = hashlib.sha256()
    for part in (source.encode(), position.encode(), content):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


def content(record: Record) -> bytes:
    """What a row says, label and origin aside: equal bytes mean the same row, and their number is its size."""
    parts = (record.text, record.prompt, record.completion, record.image, record.audio)
    return b"\0".join(part.encode() if isinstance(part, str) else part for part in parts if part is not None)


def count_reasons(dropped: Iterable[Dropped]) -> dict[str, int]:
    """Reason → number of rows, in alphabetical order."""
    return dict(sorted(Counter(row.reason for row in dropped).items()))


def write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """Write a JSON list with id, path and reason of each row that was left out."""
    path.write_text(json.dumps([asdict(row) for row in dropped], indent=0))


def write_rows(path: Path, rows: Iterable[Record]) -> int:
    """Write rows as Parquet with a fixed schema, so that equal rows give equal bytes. Returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"image": pa.binary(), "audio": pa.binary()}
    schema = pa.schema(
        [("id", pa.string()), *((c, kinds.get(c, pa.string())) for c in COLUMNS), ("origin", pa.string())]
    )
    table = [
        {"id": r.id, **{c: getattr(r, c) for c in COLUMNS}, "origin": json.dumps(dict(r.origin), sort_keys=True)}
        for r in rows
    ]
    pq.write_table(pa.Table.from_pylist(table, schema=schema), path, compression="zstd")
    return len(table)


def read_rows(path: Path) -> Iterator[Record]:
    """Read rows back in the order in which they were written."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            row["origin"] = json.loads(row["origin"])
            yield Record(**row)
