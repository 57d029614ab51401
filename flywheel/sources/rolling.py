"""Rows that were fetched, as files `rows-00000.parquet` (or .jsonl), `rows-00001.parquet`, ... of bounded size.

Where rows are only ever added, all files but the last stay as they are, and so does what was made from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS, MAX_BYTES = 100_000, 64 << 20
"""Of one file: a new one begins with the batch after the one that reaches either."""


LINES = 10_000
"""Rows of one file of lines."""


class RollingParquet:
    """Writes batches one after the other; holds one batch in memory. A batch of another schema begins a new file."""

    def __init__(self, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        self.rows = self.files = 0
        self._into = into
        self._file: Any = None
        self._schema: pa.Schema | None = None
        self._rows = self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, batch: pa.Table) -> None:
        if not batch.num_rows:
            return
        if self._schema is None or batch.schema != self._schema or self._rows >= MAX_ROWS or self._bytes >= MAX_BYTES:
            self._open(batch.schema)
        self._file.write_table(batch)
        self.rows += batch.num_rows
        self._rows += batch.num_rows
        self._bytes += batch.nbytes

    def _open(self, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._close()
        path = self._into / f"rows-{self.files:05d}.parquet"
        self._file = pq.ParquetWriter(path, schema, compression="zstd", compression_level=1)
        self._schema = schema
        self.files += 1
        self._rows = self._bytes = 0

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def write_lines(into: Path, rows: Iterable[Mapping[str, Any] | bytes]) -> dict[str, Any]:
    """Write rows as JSON, one a line, LINES to a file; bytes are lines already. Returns `rows` and `files`."""
    into.mkdir(parents=True, exist_ok=True)
    count = files = 0
    for number, block in groupby(enumerate(rows), lambda numbered: numbered[0] // LINES):
        with (into / f"rows-{number:05d}.jsonl").open("wb") as file:
            for _, row in block:
                file.write(row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() + b"\n")
                count += 1
        files += 1
    return {"rows": count, "files": files}
