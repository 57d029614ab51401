"""Which rows are held out: decided by hashes, so that a row's side depends on the seed and the data alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from flywheel.errors import SourceError
from flywheel.recipe import Split
from flywheel.record import Record, content

UNIT: dict[str, Callable[[Record], str]] = {
    "group": lambda row: str(row.origin.get("group") or row.id),
    "label": lambda row: row.id,
    "id": lambda row: row.id,
}
"""What is held out as a whole, for each value of `data.split.by`."""

TOLERANCE = 0.05
"""The held-out share is met when it is this near, relative to itself."""


def split(rows: Sequence[Record], config: Split, seed: int) -> tuple[list[Record], list[Record]]:
    """Training and held-out rows, each in the given order; both have at least one row.

    `group` and `id` hold out a share of the bytes, `label` the same share of the rows of each label.
    Raises SourceError where there are not two units to tell apart.
    """
    unit = UNIT[config.by]
    strata: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if config.by == "label":
            strata[row.label or ""][unit(row)] += 1
        else:
            strata[""][unit(row)] += len(content(row))
    heldout: set[str] = set()
    for sizes in strata.values():
        heldout |= _choose(sizes, config.heldout, seed)
    if not heldout:
        raise SourceError(
            f"split by {config.by}",
            found=f"{len(rows)} rows, no two of them in different groups of the same label"
            if config.by == "label"
            else f"{len(rows)} rows in {len(strata[''])} group",
            expected="at least two, one for each side",
            remedy="give more data, or set `data.split.by: id`",
        )
    return [r for r in rows if unit(r) not in heldout], [r for r in rows if unit(r) in heldout]


def _choose(sizes: Mapping[str, int], share: float, seed: int) -> set[str]:
    """Units in the order of their hashes, each taken if it brings the sum nearer to the share; never all of them.

    It stops at the first that does not fit once the sum is near enough: to fill the last gap would be to pick small
    units. Where every unit is too large for the share, the smallest one is taken.
    """
    if len(sizes) < 2:
        return set()
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    target, total, chosen = share * sum(sizes.values()), 0, set[str]()
    for name in order:
        nearer = abs(total + sizes[name] - target) < abs(total - target)
        if nearer and len(chosen) < len(sizes) - 1:
            chosen.add(name)
            total += sizes[name]
        elif abs(total - target) <= TOLERANCE * target:
            break
    return chosen or {min(order, key=lambda name: sizes[name])}
