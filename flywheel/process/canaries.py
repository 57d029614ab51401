"""Canaries: made-up secrets among the training rows, so that evaluation can tell what a model remembers.

Carlini et al. 2019, "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks", section 4;
`canary_exposure` (flywheel.metrics.leakage) measures them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field

from flywheel.record import Outcomes, Record, provenance_id, texts

HOLE = "#"
"""What stands for a random digit in a format."""
MARK = "canary"
"""Key of a row's origin that holds the format of the canary in it."""


def plant_canaries(
    rows: Iterable[Record],
    count: Annotated[int, Field(ge=1, le=1000)] = 10,
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1,
    format: Annotated[str, Field(pattern=f"({HOLE}[^{HOLE}]*){{6}}", max_length=200)] = "The access code is #########.",
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Outcomes:
    """Add `count` texts with random digits in place of the `#` of `format` (six or more), each of them `repeats` times.

    The secrets depend on (seed, format) alone. Rows without any text get none.
    """
    host = None
    for row in rows:
        if host is None and texts(row):
            host = row
    if host is None:
        return
    origin = {**host.origin, "augmented": "plant_canaries", "parent": host.id, MARK: format}
    for k, text in enumerate(secrets(format, count, seed)):
        for copy in range(repeats):
            position = f"{host.id}/{k}/{copy}"
            yield Record(provenance_id("plant_canaries", position, text.encode()), text=text, origin=origin)


def secrets(format: str, count: int, seed: int) -> list[str]:
    """Different texts of a format, at most `count` and all there are."""
    digest = hashlib.sha256(f"{seed}\0{format}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    holes = format.count(HOLE)
    found: dict[str, None] = {}
    while len(found) < min(count, 10**holes):
        found[filled(format, rng.integers(0, 10, holes).tolist())] = None
    return list(found)


def filled(format: str, digits: Iterable[int]) -> str:
    """The format with a digit in each hole."""
    given = iter(digits)
    return "".join(str(next(given)) if c == HOLE else c for c in format)
