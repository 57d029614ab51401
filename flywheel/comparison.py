"""Champion and challenger on the same examples: how much better, how sure, and how many examples it would take.

The test is a permutation test of paired examples (Good 2005, chapter 3; for ratios and corpus scores as in Riezler &
Maxwell 2005): if neither model is better, it makes no difference which of them an example's answer came from. It is
exact for any metric and any number of examples; the interval of the gain is a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np

from flywheel.metrics.metric import Better
from flywheel.metrics.scores import RESAMPLES, Floats, Scores, draws

PERMUTATIONS = 4000
ALPHA = 0.025
"""One-sided: the chance of promoting a version that is no better, and of calling one worse that is not."""
POWER_QUANTILES = 1.960 + 1.282
"""Normal quantiles of 97.5 % and of 90 %: a gain found with a power of .9."""
_CHUNK = 1 << 23
"""Elements of a matrix of weights that is held at a time."""


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same examples. Gains are positive where the challenger is better."""

    metric: str
    better: Better
    challenger: float
    champion: float
    gain: float
    """Difference of the two, in the metric's own unit."""
    low: float
    high: float
    """Its 95 % interval."""
    p_better: float
    """Chance of such a gain, or a larger one, if the challenger is no better."""
    p_worse: float
    """Chance of such a loss, or a larger one, if it is no worse."""
    examples: int
    needed: int
    """Examples with which a gain of the minimum effect is found in nine of ten comparisons."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(name: str, better: Better, pair: tuple[Scores, Scores], effect: float, seed: int = 0) -> Comparison:
    """Compare (challenger, champion). `effect` is the minimum effect as a share of the champion's value.

    Raises ValueError where the two do not have the same examples.
    """
    mine, theirs = paired(*pair)
    sign = 1.0 if better == "higher" else -1.0
    gain = sign * (mine.value() - theirs.value()) + 0.0  # never minus zero
    resampled = sign * _over(draws(len(mine), RESAMPLES, seed), lambda w: mine.values(w) - theirs.values(w))
    low, high = np.percentile(resampled, [2.5, 97.5]) + 0.0
    swapped = sign * _over(_swaps(len(mine), seed), _difference(mine, theirs))
    slack = 1e-12 * max(1.0, abs(gain))  # sums of the same numbers in another order
    return Comparison(
        metric=name,
        better=better,
        challenger=mine.value(),
        champion=theirs.value(),
        gain=gain,
        low=float(low),
        high=float(high),
        p_better=float(1 + (swapped >= gain - slack).sum()) / (1 + PERMUTATIONS),
        p_worse=float(1 + (swapped <= gain + slack).sum()) / (1 + PERMUTATIONS),
        examples=len(mine),
        needed=_needed(len(mine), float(resampled.std()), effect * abs(theirs.value())),
    )


def paired(one: Scores, other: Scores) -> tuple[Scores, Scores]:
    """Both on the examples that they share: by name where they have names, else by place. Raises ValueError."""
    fixed, others = (np.zeros(0) if scores.fixed is None else scores.fixed for scores in (one, other))
    if one.how != other.how or not np.array_equal(fixed, others):
        raise ValueError("measured against other references")
    if one.ids and other.ids:
        places = {name: i for i, name in enumerate(other.ids)}
        shared = [(i, places[name]) for i, name in enumerate(one.ids) if name in places]
        one, other = one.only([i for i, _ in shared]), other.only([j for _, j in shared])
    if len(one) != len(other) or not len(one):
        raise ValueError(f"{len(one)} and {len(other)} examples are not the same ones")
    return one, other


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Chances of several tests, adjusted so that all of them together err no more often than one (Holm 1979)."""
    found, least = dict[str, float](), 0.0
    for rank, (name, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(chances) - rank) * chance))
        found[name] = least
    return found


def _difference(mine: Scores, theirs: Scores) -> Callable[[Floats], Floats]:
    """The difference after the examples that are 1 in a row of swaps went over to the other model."""
    both = Scores(np.concatenate([mine.parts, theirs.parts]), mine.how, fixed=mine.fixed)

    def of(swap: Floats) -> Floats:
        here, there = np.hstack([1 - swap, swap]), np.hstack([swap, 1 - swap])
        return both.values(here) - both.values(there)

    return of


def _swaps(examples: int, seed: int) -> Floats:
    return np.random.default_rng((seed, 1)).integers(0, 2, size=(PERMUTATIONS, examples)).astype(np.float64)


def _over(weights: Floats, value: Callable[[Floats], Floats]) -> Floats:
    """A value for each row of weights, some rows at a time."""
    rows = max(1, _CHUNK // (2 * weights.shape[1]))
    return np.concatenate([value(weights[i : i + rows]) for i in range(0, len(weights), rows)])


def _needed(examples: int, error: float, effect: float) -> int:
    """Examples with which `effect` is found: the standard error falls with the root of their number."""
    return ceil(examples * (POWER_QUANTILES * error / effect) ** 2) if effect > 0 else 0


def compare_all(
    mine: Mapping[str, tuple[Better, Scores]], theirs: Mapping[str, tuple[Better, Scores]], effect: float, seed: int
) -> tuple[list[Comparison], list[str]]:
    """Comparisons of what both have measured and that has a better side; and why others could not be made."""
    made: list[Comparison] = []
    faults: list[str] = []
    for name, (better, scores) in mine.items():
        if better == "neither" or name not in theirs:
            continue
        try:
            made.append(compare(name, better, (scores, theirs[name][1]), effect, seed))
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return made, faults


def as_comparisons(plain: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """Read back what `as_dict` gave."""
    return [Comparison(**one) for one in plain]
