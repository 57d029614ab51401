"""Files of rows: read and written a piece at a time."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa

from flywheel.record import BATCH, Record, facts, read_rows, write_rows


def test_a_file_is_never_held_as_a_whole(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "rows.parquet"
    write_rows(path, (Record(f"{n:016x}", text=rng.randbytes(500).hex()) for n in range(20 * BATCH)))
    held = [pa.total_allocated_bytes() for _ in read_rows(path)]
    assert len(held) == facts(path)["rows"] == 20 * BATCH
    assert max(held) < path.stat().st_size / 2
