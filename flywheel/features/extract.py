"""features: a vectoriser that is fitted to the training rows, and the vectors of all rows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.errors import SourceError
from flywheel.features import table
from flywheel.features.base import Vectoriser, Vectors
from flywheel.recipe_features import Features
from flywheel.record import Record, located, read_rows

SPLITS = ("train", "heldout")
BATCH = 256
"""Rows that are turned into vectors at a time."""


def features(config: Features, rows: Path, out: Path) -> dict[str, Any]:
    """Fit to the training rows of a directory; write `out/vectoriser/`, and the vectors of each split to a file.

    Returns `type`, `width` and the number of `rows` by split. Equal rows and configuration give equal files.
    """
    places = {split: _place(rows, split) for split in SPLITS}
    vectoriser = table.fit(config, places["train"])
    table.save(vectoriser, config, out / "vectoriser")
    counts = {
        split: write_vectors(out / f"{split}.parquet", vectoriser, read_rows(place)) for split, place in places.items()
    }
    return {"type": config.type, "width": vectoriser.width, "rows": counts}


def write_vectors(path: Path, vectoriser: Vectoriser, rows: Iterable[Record]) -> int:
    """Write `id`, `label` and `vector` (a list of float32) of each row, BATCH at a time; returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), vectoriser.width)
    schema = pa.schema([("id", pa.string()), ("label", pa.string()), ("vector", kind)])
    waiting, count = iter(rows), 0
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["label"]) as file:
        while batch := list(islice(waiting, BATCH)):
            vectors = pa.FixedSizeListArray.from_arrays(vectoriser.transform(batch).ravel(), type=kind)
            columns = [
                pa.array([row.id for row in batch]),
                pa.array([row.label for row in batch], pa.string()),
                vectors,
            ]
            file.write_batch(pa.record_batch(columns, schema=schema))
            count += len(batch)
    return count


def read_vectors(path: Path) -> tuple[list[str], Vectors]:
    """Ids, and vectors of shape (rows, width), of a file of vectors."""
    import pyarrow.parquet as pq

    found = pq.read_table(path, columns=["id", "vector"])
    width = found.schema.field("vector").type.list_size
    flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return found["id"].to_pylist(), np.asarray(flat, dtype=np.float32).reshape(-1, width)


def _place(rows: Path, split: str) -> Path:
    found = located(rows, split)
    if found is None:
        raise SourceError(
            f"rows {rows}", found=f"no {split} rows", expected="prepared rows with both sides of the split"
        )
    return found
