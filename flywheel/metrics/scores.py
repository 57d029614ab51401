"""What each example adds to a metric, so that two models can be compared on the same examples.

A metric is a function of sums over examples, or of the examples drawn: `aggregate` gives its value for any weighting of
them, and from that come intervals, tests and sample sizes, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
How = Literal["ratio", "gap", "macro", "calibration", "perplexity", "bleu", "chrf", "frechet", "kernel", "inception"]

AGGREGATES: dict[How, str] = {
    "ratio": "flywheel.metrics.scores:ratio",
    "macro": "flywheel.metrics.labels:macro_of",
    "calibration": "flywheel.metrics.labels:ece_of",
    "perplexity": "flywheel.metrics.perplexity:perplexity_of",
    "gap": "flywheel.metrics.fairness:gaps",
    "bleu": "flywheel.metrics.overlap:bleu_of",
    "chrf": "flywheel.metrics.overlap:chrf_of",
    "frechet": "flywheel.metrics.image:frechet_of",
    "kernel": "flywheel.metrics.distances:kernel_of",
    "inception": "flywheel.metrics.distances:inception_of",
}
"""How a metric comes from its examples: `aggregate(parts (examples, k), weights (draws, examples), fixed) -> (draws,)`.
`weights` count how often each example was drawn."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Scores:
    """The examples behind a metric."""

    parts: Floats
    """(examples, k): numerator and denominator for a ratio, the n-gram counts of a sentence, features of a picture."""
    how: How = "ratio"
    ids: tuple[str, ...] = ()
    """Names of the examples, where not everything that is compared is asked the same in the same order."""
    fixed: Floats | None = None
    """What no example owns: features of real pictures (m, k), the order of n-grams."""

    def __len__(self) -> int:
        return len(self.parts)

    def value(self) -> float:
        return float(self.values(np.ones((1, len(self))))[0])

    def values(self, weights: Floats) -> Floats:
        """The metric for each weighting of the examples, (draws,)."""
        module, _, name = AGGREGATES[self.how].partition(":")
        found: Floats = getattr(import_module(module), name)(self.parts, weights, self.fixed)
        return found

    def only(self, picks: Sequence[int]) -> Scores:
        """Some of the examples, in this order."""
        chosen = list(picks)
        return Scores(self.parts[chosen], self.how, tuple(self.ids[i] for i in chosen if self.ids), self.fixed)


def ratio(parts: Floats, weights: Floats, fixed: Floats | None = None) -> Floats:
    """A ratio of sums (bits per byte), or a mean where the second column is ones."""
    sums = weights @ parts
    found: Floats = sums[:, 0] / sums[:, 1]
    return found


def draws(examples: int, count: int, seed: int) -> Floats:
    """How often each example is drawn in each of `count` resamples with replacement, (count, examples)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, examples, size=(count, examples))
    rows = np.repeat(np.arange(count), examples)
    counted = np.bincount(rows * examples + picks.ravel(), minlength=count * examples)
    return counted.reshape(count, examples).astype(np.float64)


def resamples(examples: int, count: int, seed: int) -> Iterator[Floats]:
    """`draws`, some at a time where the examples are many."""
    for number, size in enumerate(chunks(examples, count)):
        yield draws(examples, size, seed + number)


def chunks(width: int, count: int) -> Iterator[int]:
    """Rows at a time of a matrix of `count` rows, so that no more than 2^22 elements are held."""
    size = max(1, (1 << 22) // width)
    yield from (min(size, count - first) for first in range(0, count, size))


def interval(scores: Scores, seed: int) -> tuple[float, float]:
    """The 95 % interval of 1,000 resamples of whole examples (Efron & Tibshirani 1993, percentile method)."""
    values = np.concatenate([scores.values(w) for w in resamples(len(scores), RESAMPLES, seed)])
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
