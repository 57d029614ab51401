from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flywheel.comparison import ALPHA, Comparison, compare, compare_all, holm, paired
from flywheel.metrics.scores import Scores

Floats = NDArray[np.float64]


def mean(values: Floats, **more: tuple[str, ...]) -> Scores:
    return Scores(np.stack([values, np.ones_like(values)], axis=1), **more)


def bits(rng: np.random.Generator, examples: int, noise: float = 0.0, share: float = 0.0) -> tuple[Scores, Scores]:
    """Bits and bytes of documents under two models, the first of which needs `share` fewer bits."""
    sizes = rng.integers(100, 4000, examples).astype(np.float64)
    champion = sizes * rng.normal(1.5, 0.3, examples).clip(0.5)
    challenger = champion * (1 - share) * (1 + rng.normal(0, noise, examples))
    return Scores(np.stack([challenger, sizes], axis=1)), Scores(np.stack([champion, sizes], axis=1))


def better(one: Comparison) -> bool:
    return one.gain > 0 and one.p_better <= ALPHA


def test_gains_are_positive_where_the_challenger_is_better() -> None:
    pair = mean(np.array([1.0, 2.0, 3.0])), mean(np.array([2.0, 3.0, 4.0]))
    assert compare("loss", "lower", pair, 0.01).gain == pytest.approx(1.0)
    assert compare("score", "higher", pair, 0.01).gain == pytest.approx(-1.0)


def test_a_model_is_not_better_than_itself() -> None:
    scores = mean(np.random.default_rng(0).normal(size=50))
    one = compare("score", "higher", (scores, scores), 0.01)
    assert (one.gain, one.low, one.high, one.p_better, one.p_worse) == (0.0, 0.0, 0.0, 1.0, 1.0)


def test_the_chance_is_that_of_all_swaps_of_signs() -> None:
    """Eight pairs that all agree: one of 256 swaps is as extreme (Good 2005)."""
    one = compare("score", "higher", (mean(np.arange(1.0, 9.0)), mean(np.zeros(8))), 0.01)
    assert one.p_better == pytest.approx(1 / 256, abs=0.003)
    assert one.p_worse == 1.0


def test_examples_are_paired_by_name() -> None:
    one, other = mean(np.array([1.0, 2.0, 3.0]), ids=("a", "b", "c")), mean(np.array([30.0, 10.0]), ids=("c", "a"))
    first, second = paired(one, other)
    assert first.parts[:, 0].tolist() == [1.0, 3.0]
    assert second.parts[:, 0].tolist() == [10.0, 30.0]


def test_other_examples_and_other_references_are_not_compared() -> None:
    few, many = mean(np.zeros(3)), mean(np.zeros(4))
    judged = Scores(few.parts, "frechet", fixed=np.ones((2, 2)))
    other = Scores(few.parts, "frechet", fixed=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="3 and 4 examples"):
        compare("m", "higher", (few, many), 0.01)
    made, faults = compare_all({"m": ("higher", judged)}, {"m": ("higher", other)}, 0.01, 0)
    assert not made
    assert faults == {"m": "measured against other references"}


def test_what_is_no_number_or_is_missing_is_a_fault() -> None:
    ones = mean(np.ones(9))
    infinite = mean(np.array([np.inf, *np.ones(8)]))
    made, faults = compare_all({"a": ("higher", infinite), "b": ("higher", ones)}, {"a": ("higher", ones)}, 0.01, 0)
    assert not made
    assert faults == {"a": "inf and 1 cannot be compared", "b": "only one of the two was measured"}


def test_the_interval_holds_95_of_100_resamples_and_the_number_needed_follows_from_it() -> None:
    """Normal differences: mean .1, standard deviation 1, standard error .05."""
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 1, 400)
    noise += 0.1 - noise.mean()
    one = compare("m", "higher", (mean(2 + noise), mean(np.full(400, 2.0))), 0.05)
    assert (one.low, one.high) == (pytest.approx(0.1 - 0.098, abs=0.015), pytest.approx(0.1 + 0.098, abs=0.015))
    assert one.needed == pytest.approx((3.242 * noise.std() / 0.1) ** 2, rel=0.15)
    assert compare("m", "higher", (mean(np.arange(4.0)), mean(np.zeros(4))), 0.01).needed == 0


def test_many_examples_take_little_memory() -> None:
    import tracemalloc

    scores = mean(np.random.default_rng(0).normal(size=20_000))
    tracemalloc.start()
    compare("m", "higher", (scores, scores), 0.01, permutations=200)
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()


def test_one_of_many_metrics_can_be_worse_beyond_doubt() -> None:
    same, lost = mean(np.ones(30)), mean(np.zeros(30))
    names = [f"m{i}" for i in range(150)]
    made, _ = compare_all(dict.fromkeys(names, ("higher", lost)), dict.fromkeys(names, ("higher", same)), 0.01, 0)
    assert max(holm({c.metric: c.p_worse for c in made}).values()) <= ALPHA


def test_holms_adjustment() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}


def test_equal_models_are_rarely_told_apart() -> None:
    """400 comparisons of models that differ by noise alone: at most 5 % are promoted."""
    rng = np.random.default_rng(7)
    found = [compare("bits_per_byte", "lower", bits(rng, 60, noise=0.1), 0.01) for _ in range(400)]
    assert sum(map(better, found)) <= 20


def test_a_true_gain_of_the_minimum_effect_is_found_at_the_sample_size_that_is_told() -> None:
    rng = np.random.default_rng(8)
    needed = compare("bits_per_byte", "lower", bits(rng, 200, noise=0.05), 0.02).needed
    found = [compare("bits_per_byte", "lower", bits(rng, needed, 0.05, share=0.02), 0.02) for _ in range(100)]
    assert sum(map(better, found)) >= 80
