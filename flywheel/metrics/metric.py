"""Metric: one number with its interval and its direction, so that gates and tables need no special cases."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Better = Literal["higher", "lower"]


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

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "name"}


def bootstrap_ratio(
    name: str, better: Better, numerator: NDArray[np.float64], denominator: NDArray[np.float64], seed: int = 0
) -> Metric:
    """A ratio of sums over examples (bits per byte, a mean when the denominator is ones) with a percentile interval.

    Both arrays have shape (examples,). 1,000 resamples of whole examples (Efron & Tibshirani 1993, percentile method).
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(numerator), size=(1000, len(numerator)))
    resampled = numerator[picks].sum(axis=1) / denominator[picks].sum(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Metric(name, float(numerator.sum() / denominator.sum()), float(low), float(high), better)


def bootstrap_mean(name: str, better: Better, values: NDArray[np.float64], seed: int = 0) -> Metric:
    """The mean over examples, shape (examples,), with its interval."""
    return bootstrap_ratio(name, better, values, np.ones_like(values), seed)
