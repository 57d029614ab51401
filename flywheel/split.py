"""Which rows are held out: decided by hashes, so that a row's side depends on the seed and the data alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flywheel.errors import SourceError
from flywheel.process.table import Codes, sketched
from flywheel.recipe import Split
from flywheel.record import Record, content

if TYPE_CHECKING:
    import pyarrow as pa

TOLERANCE = 0.05
"""The held-out share is met when it is this near, relative to itself."""

_CHUNK = 1 << 16
_UNIT = np.dtype([("stratum", np.int32), ("high", np.uint64), ("low", np.uint64)])
"""What is held out as a whole: a group or a row, named by the first half of its hash; strata are split one by one."""


def sketch_units(rows: Iterable[Record]) -> pa.Table:
    """One line for each row: `unit_group` (its group, or its id), `id`, `label` and `size` in bytes."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([("unit_group", text), ("id", pa.string()), ("label", text), ("size", pa.int64())])
    lines = [
        {
            "unit_group": str(row.origin.get("group") or row.id),
            "id": row.id,
            "label": row.label or "",
            "size": len(content(row)),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(lines, schema)


def sides(sketches: Sequence[Path], config: Split, seed: int) -> list[Codes]:
    """The side of each row of each sketch: 0 training, 1 held out; both have at least one row.

    `group` and `id` hold out a share of the bytes, `label` the same share of the rows of each label.
    Holds some 150 bytes for each row. Raises SourceError where there are not two units to tell apart.
    """
    tables = [sketched(path) for path in sketches]
    named, sizes = _units(tables, config, seed)
    units, unit = np.unique(named, return_inverse=True)
    weights = np.zeros(len(units), np.int64)
    np.add.at(weights, unit, sizes)
    heldout = np.zeros(len(units), np.bool_)
    borders = np.flatnonzero(np.diff(units["stratum"])) + 1
    for stratum in np.split(np.arange(len(units)), borders):
        heldout[stratum[_chosen(weights[stratum], config.heldout)]] = True
    if not heldout.any():
        raise SourceError(
            f"split by {config.by}",
            found=f"{len(named)} rows, no two of them in different groups of the same label"
            if config.by == "label"
            else f"{len(named)} rows in {len(units)} group",
            expected="at least two, one for each side",
            remedy="give more data, or set `data.split.by: id`",
        )
    shards = np.split(heldout[unit].astype(np.uint8), np.cumsum([table.num_rows for table in tables]))
    return shards[: len(tables)]


def _units(tables: Sequence[pa.Table], config: Split, seed: int) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """The unit of each row, and what the row weighs."""
    named = np.zeros(sum(table.num_rows for table in tables), _UNIT)
    sizes = np.ones(len(named), np.int64)
    labels: dict[str, int] = {}
    start = 0
    for table in tables:
        rows = slice(start, start := start + table.num_rows)
        column = table["unit_group" if config.by == "group" else "id"].combine_chunks().dictionary_encode()
        digests = b"".join(_digest(seed, name) for name in column.dictionary.to_pylist())
        halves = np.frombuffer(digests, ">u8").reshape(-1, 2)[column.indices.to_numpy()]
        named["high"][rows], named["low"][rows] = halves[:, 0], halves[:, 1]
        if config.by == "label":
            column = table["label"].combine_chunks().dictionary_encode()
            strata = [labels.setdefault(label, len(labels)) for label in column.dictionary.to_pylist()]
            named["stratum"][rows] = np.array(strata, np.int32)[column.indices.to_numpy()]
        else:
            sizes[rows] = table["size"].to_numpy()
    return named, sizes


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:16]


def _chosen(sizes: NDArray[np.int64], share: float) -> list[int]:
    """Places of units in the order of their hashes, each taken if it brings the sum nearer to the share; never all.

    It stops at the first that does not fit once the sum is near enough: to fill the last gap would be to pick small
    units. Where every unit is too large for the share, the smallest one is taken.
    """
    if len(sizes) < 2:
        return []
    target, total, chosen = share * int(sizes.sum()), 0, list[int]()
    for place, size in enumerate(_numbers(sizes)):
        nearer = abs(total + size - target) < abs(total - target)
        if nearer and len(chosen) < len(sizes) - 1:
            chosen.append(place)
            total += size
        elif abs(total - target) <= TOLERANCE * target:
            break
    return chosen or [int(np.argmin(sizes))]


def _numbers(values: NDArray[np.int64]) -> Iterator[int]:
    """The values as Python's integers, some at a time."""
    for start in range(0, len(values), _CHUNK):
        yield from values[start : start + _CHUNK].tolist()
