from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.metrics.text import Documents, bits_per_byte, log_likelihoods, sliding_windows


class Uniform:
    """Every token has probability 1/16: four bits."""

    def log_likelihood(self, windows: Sequence[Any], score_from: Sequence[int]) -> list[np.ndarray]:
        return [np.full(len(w) - s, -np.log(16)) for w, s in zip(windows, score_from, strict=True)]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(2, 12))
def test_every_token_but_the_first_is_scored_once(lengths: list[int], context: int) -> None:
    documents = [np.arange(n) for n in lengths]
    scored: list[list[int]] = [[] for _ in lengths]
    windows, score_from, owner = sliding_windows(documents, context)
    for window, start, index in zip(windows, score_from, owner, strict=True):
        assert len(window) <= context
        assert start >= min(context // 2, window[start])
        scored[index] += window[start:].tolist()
    assert scored == [list(range(1, n)) for n in lengths]


def test_bits_per_byte_counts_bits_over_bytes() -> None:
    documents = Documents([np.zeros(101, dtype=np.int64), np.zeros(11, dtype=np.int64)], [200, 20])
    metric = bits_per_byte(Uniform(), documents, context=16, seed=0)
    assert metric.value == pytest.approx(2.0)
    assert metric.low == pytest.approx(2.0)
    assert (metric.name, metric.better) == ("bits_per_byte", "lower")


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.integers(2, 12))
def test_every_token_from_a_start_on_is_scored_once(sizes: list[tuple[int, int]], context: int) -> None:
    documents, starts = [np.arange(a + b) for a, b in sizes], [a for a, _ in sizes]
    scored: list[list[int]] = [[] for _ in sizes]
    windows, score_from, owner = sliding_windows(documents, context, starts)
    for window, start, index in zip(windows, score_from, owner, strict=True):
        assert len(window) <= context
        assert start >= min(context // 2, window[start])
        scored[index] += window[start:].tolist()
    assert scored == [list(range(a, a + b)) for a, b in sizes]
    nats = log_likelihoods(Uniform(), documents, starts, context)
    np.testing.assert_allclose(nats, [-b * np.log(16) for _, b in sizes])
