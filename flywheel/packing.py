"""Packing: which sequences share a row of fixed length, so that little of it is padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Assign sequences to rows of `capacity` tokens: lists of indices into `lengths`, each index exactly once.

    Best-fit decreasing (Johnson 1974; at most 11/9 of the fewest rows, plus one): the longest sequence first, each into
    the fullest row that still holds it. Equal lengths keep their order, so equal input gives equal rows. A sequence
    longer than `capacity` is a ValueError: cut it first. O(n log n) comparisons.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if capacity < 1 or (sizes.size and (sizes.min() < 0 or sizes.max() > capacity)):
        raise ValueError(f"lengths must lie between 0 and the capacity of {capacity}")
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[index])
        at = bisect_left(room, (size, -1))
        if at == len(room):
            rows.append([])
            free, row = capacity, len(rows) - 1
        else:
            free, row = room.pop(at)
        rows[row].append(index)
        insort(room, (free - size, row))
    return rows
