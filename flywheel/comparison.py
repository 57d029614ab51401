"""Champion and challenger on the same examples: how much better, how sure, and how many examples it would take.

The test is a permutation test of paired examples (Good 2005, chapter 3; for ratios and corpus scores as in Riezler &
Maxwell 2005): if neither model is better, it makes no difference which of them an example's answer came from. It is
exact for any metric and any number of examples; the interval of the gain is a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil, isfinite
from typing import Any

import numpy as np

from flywheel.metrics.metric import Better
from flywheel.metrics.scores import RESAMPLES, Floats, Scores, chunks, resamples

PERMUTATIONS = 4000
ALPHA = 0.025
"""One-sided: the chance of promoting a version that is no better, and of calling one worse that is not."""
POWER_QUANTILES = 1.960 + 1.282
"""Normal quantiles of 97.5 % and of 90 %: a gain found with a power of .9."""
FEWEST = 6
"""Examples below which no gain is sure: five coins fall alike once in 32 times."""


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


def compare(
    name: str,
    better: Better,
    pair: tuple[Scores, Scores],
    effect: float,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Comparison:
    """Compare (challenger, champion). `effect` is the minimum effect as a share of the champion's value.

    Raises ValueError where the two do not have the same examples, or no finite value.
    """
    mine, theirs = paired(*pair)
    ours, champion = mine.value(), theirs.value()
    if not isfinite(ours) or not isfinite(champion):
        raise ValueError(f"{ours:g} and {champion:g} cannot be compared")
    sign = 1.0 if better == "higher" else -1.0
    gain = sign * (ours - champion) + 0.0  # never minus zero
    both = Scores(np.concatenate([mine.parts, theirs.parts]), mine.how, fixed=mine.fixed)
    weights = resamples(len(mine), RESAMPLES, seed)
    resampled = sign * np.concatenate([mine.values(w) - theirs.values(w) for w in weights])
    low, high = np.nanpercentile(resampled, [2.5, 97.5]) + 0.0
    swapped = sign * np.concatenate([_swapped(both, swap) for swap in _swaps(len(mine), permutations, seed)])
    slack = 1e-12 * max(1.0, abs(gain))  # sums of the same numbers in another order
    return Comparison(
        metric=name,
        better=better,
        challenger=ours,
        champion=champion,
        gain=gain,
        low=float(low),
        high=float(high),
        p_better=float(1 + (~(swapped < gain - slack)).sum()) / (1 + permutations),  # what is no number speaks for none
        p_worse=float(1 + (~(swapped > gain + slack)).sum()) / (1 + permutations),
        examples=len(mine),
        needed=_needed(len(mine), float(np.nanstd(resampled)), effect * abs(champion)),
    )


def paired(one: Scores, other: Scores) -> tuple[Scores, Scores]:
    """Both on the examples that they share: by name where they have names, else by place. Raises ValueError."""
    fixed, others = (np.zeros(0) if scores.fixed is None else scores.fixed for scores in (one, other))
    if one.how != other.how or not np.array_equal(fixed, others):
        raise ValueError("measured against other references")
    if one.ids and other.ids:
        places = {name: i for i, name in enumerate(other.ids)}
        if len(places) < len(other.ids) or len(set(one.ids)) < len(one.ids):
            raise ValueError("several examples have one name")
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


def _swapped(both: Scores, swap: Floats) -> Floats:
    """The difference after the examples that are 1 in a row of swaps went over to the other model."""
    return both.values(np.hstack([1 - swap, swap])) - both.values(np.hstack([swap, 1 - swap]))


def _swaps(examples: int, count: int, seed: int) -> Iterator[Floats]:
    """Which examples are exchanged in each permutation, (some, examples) at a time."""
    rng = np.random.default_rng((seed, 1))
    for size in chunks(2 * examples, count):
        yield rng.integers(0, 2, size=(size, examples), dtype=np.int8).astype(np.float64)


def _needed(examples: int, error: float, effect: float) -> int:
    """Examples with which `effect` is found: the standard error falls with the root of their number. No fewer than can
    be told from chance at all; 0 where an effect of that size cannot be asked for."""
    if not effect > 0 or not isfinite(wanted := examples * (POWER_QUANTILES * error / effect) ** 2):
        return 0
    return max(FEWEST, ceil(wanted))


def compare_all(
    mine: Mapping[str, tuple[Better, Scores]], theirs: Mapping[str, tuple[Better, Scores]], effect: float, seed: int
) -> tuple[list[Comparison], dict[str, str]]:
    """Comparisons of everything that has a better side; and metric name → why it could not be compared."""
    made: list[Comparison] = []
    faults: dict[str, str] = {}
    names = [name for name, (better, _) in {**theirs, **mine}.items() if better != "neither"]
    permutations = max(PERMUTATIONS, ceil(2 * len(names) / ALPHA))  # so that one of all tests can still be sure
    for name in names:
        if name not in mine or name not in theirs:
            faults[name] = "only one of the two was measured"
            continue
        better, scores = mine[name]
        try:
            made.append(compare(name, better, (scores, theirs[name][1]), effect, seed, permutations))
        except ValueError as error:
            faults[name] = str(error)
    return made, faults
