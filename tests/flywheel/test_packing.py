"""Packing keeps every sequence, respects the capacity and wastes little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.packing import pack


@given(st.integers(1, 64).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(0, c)))))
def test_every_sequence_stands_in_exactly_one_row_that_holds_it(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    rows = pack(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= capacity for row in rows)
    assert rows == pack(lengths, capacity)


@given(st.lists(st.integers(1, 32), min_size=1))
def test_never_two_rows_that_would_fit_into_one(lengths: list[int]) -> None:
    filled = sorted(sum(lengths[i] for i in row) for row in pack(lengths, 32))
    assert len(filled) < 2 or filled[0] + filled[1] > 32


def test_many_short_documents_leave_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 2000).tolist()
    rows = pack(lengths, 256)
    assert sum(lengths) / (256 * len(rows)) > 0.97


@pytest.mark.parametrize(("lengths", "capacity"), [([5], 4), ([-1], 4), ([1], 0)])
def test_impossible_input_is_refused(lengths: list[int], capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        pack(lengths, capacity)
