"""Metric: one number with its interval and its direction, so that gates and tables need no special cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flywheel.metrics.scores import Scores, interval

Better = Literal["higher", "lower", "neither"]
"""`neither` for what only describes, such as a length: it may have thresholds and has no rival."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured value. `low` and `high` bound the 95 % bootstrap interval; `baseline` and `before` are its rivals."""

    name: str
    value: float
    low: float
    high: float
    better: Better
    baseline: float | None = None
    """The same quantity for the named baseline (an n-gram model, real against real)."""
    before: float | None = None
    """The same quantity before the stage that should have improved it."""
    unit: str = ""
    """`bits/byte`, `share`, `points of 100`, `ms`; empty for a plain number."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What the number depends on, as plain JSON: sacrebleu's signature, the extractor, how many examples."""
    scores: Scores | None = field(default=None, compare=False, repr=False)
    """The examples behind it; none where it cannot be told apart by examples."""

    def as_dict(self) -> dict[str, Any]:
        """All but name and examples, as plain JSON."""
        names = ("value", "low", "high", "better", "baseline", "before", "unit", "detail")
        return {name: getattr(self, name) for name in names}


def from_scores(
    name: str, better: Better, scores: Scores, seed: int = 0, *, unit: str = "", detail: Mapping[str, Any] | None = None
) -> Metric:
    """The metric of these examples, with its interval."""
    low, high = interval(scores, seed)
    return Metric(name, scores.value(), low, high, better, unit=unit, detail=detail or {}, scores=scores)


def bootstrap_ratio(
    name: str, better: Better, numerator: NDArray[np.float64], denominator: NDArray[np.float64], seed: int = 0
) -> Metric:
    """A ratio of sums over examples (bits per byte, a mean when the denominator is ones) with its interval.

    Both arrays have shape (examples,).
    """
    return from_scores(name, better, Scores(np.stack([numerator, denominator], axis=1).astype(np.float64)), seed)


def bootstrap_mean(name: str, better: Better, values: NDArray[np.float64], seed: int = 0) -> Metric:
    """The mean over examples, shape (examples,), with its interval."""
    return bootstrap_ratio(name, better, values, np.ones_like(values), seed)
