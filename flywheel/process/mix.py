"""How much of each source is trained on: a weight below 1 takes a share of its rows, above 1 repeats training rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from flywheel.recipe_base import Operation
from flywheel.record import Outcomes, Record, drop, provenance_id


def thin(rows: Iterable[Record], weights: Mapping[str, float], seed: int = 0) -> Outcomes:
    """Keep of each source named in `weights` that share of its rows, chosen by the hash of their ids: `weight`."""
    for row in rows:
        weight = weights.get(str(row.origin.get("source", "")), 1.0)
        yield row if weight >= 1 or _fraction(row.id, seed) < weight else drop(row, "weight")


def repeat(rows: Iterable[Record], weights: Mapping[str, float], seed: int = 0) -> Outcomes:
    """Further copies of the rows of sources with a weight above 1: 2.5 gives each one more, and every other one two."""
    for row in rows:
        weight = weights.get(str(row.origin.get("source", "")), 1.0)
        copies = int(weight) - 1 + (_fraction(row.id, seed) < weight % 1) if weight > 1 else 0
        for number in range(copies):
            origin = {**row.origin, "augmented": "repeat", "parent": row.id}
            yield row.with_fields(id=provenance_id("repeat", row.id, str(number).encode()), origin=origin)


def thinning(weights: Mapping[str, float], seed: int) -> list[Operation]:
    """The operation that the weights below 1 ask for."""
    below = {name: weight for name, weight in weights.items() if weight < 1}
    return [{"thin": {"weights": dict(below), "seed": seed}}] if below else []


def repeating(weights: Mapping[str, float], seed: int) -> list[Operation]:
    """The augmentation that the weights above 1 ask for."""
    above = {name: weight for name, weight in weights.items() if weight > 1}
    return [{"repeat": {"weights": dict(above), "seed": seed}}] if above else []


def _fraction(identity: str, seed: int) -> float:
    """A number in [0, 1) that belongs to a row."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{identity}".encode()).digest()[:7], "big") / 2**56
