"""Drawing tokens from logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.runtimes.base import Sampling
from flywheel.runtimes.sampling import pick, rng_for

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))


def draws(sampling: Sampling, logits: np.ndarray = LOGITS, count: int = 2000) -> np.ndarray:
    rng = rng_for(sampling, 0)
    picked = [pick(logits, sampling, rng) for _ in range(count)]
    return np.bincount(picked, minlength=len(logits)) / count


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert pick(np.array([1.0, 3.0, 3.0, 2.0]), Sampling(), rng_for(Sampling(seed=0), 0)) == 1


def test_draws_follow_the_probabilities() -> None:
    assert draws(Sampling(temperature=1.0)) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.04)


def test_temperature_sharpens() -> None:
    sharp = np.array([0.1, 0.4, 0.2, 0.3]) ** 2
    assert draws(Sampling(temperature=0.5)) == pytest.approx(sharp / sharp.sum(), abs=0.04)


def test_top_k_and_top_p_keep_the_likeliest() -> None:
    assert set(np.flatnonzero(draws(Sampling(temperature=1.0, top_k=2)))) == {1, 3}
    assert set(np.flatnonzero(draws(Sampling(temperature=1.0, top_p=0.65)))) == {1, 3}
    assert set(np.flatnonzero(draws(Sampling(temperature=1.0, top_p=0.71)))) == {1, 2, 3}


def test_ties_at_the_edge_are_all_admitted() -> None:
    assert set(np.flatnonzero(draws(Sampling(temperature=1.0, top_k=1), np.array([1.0, 2.0, 2.0])))) == {1, 2}


def test_same_seed_and_place_draw_the_same() -> None:
    sampling = Sampling(temperature=1.0)
    first, again, other = (
        [pick(LOGITS, sampling, rng) for _ in range(50)]
        for rng in (rng_for(Sampling(seed=7), place) for place in (0, 0, 1))
    )
    assert first == again
    assert first != other


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.floats(0.05, 5),
    st.integers(0, 50),
    st.floats(0.01, 1),
    st.integers(0, 99),
)
def test_any_setting_picks_a_known_token_and_survives_rounding(
    logits: list[float], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    token = pick(np.array(logits, dtype=np.float32), sampling, rng_for(Sampling(seed=seed), 0))
    assert 0 <= token < len(logits)
    if top_k == 1:
        assert logits[token] == max(logits)
