from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.metrics.text import Documents, bits_per_byte, bleu, rouge_l, sliding_windows

REFERENCES = ["the cat sat on the mat", "a dog barked at the moon", "rain fell all night long"]


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


def test_rouge_l_is_the_mean_f_measure() -> None:
    answers = ["the cat sat on the mat", "a dog", "nothing"]
    metric = rouge_l("answer_rouge_l", answers, REFERENCES, seed=0)
    assert metric.value == pytest.approx((1 + 2 * (2 / 2) * (2 / 6) / (2 / 2 + 2 / 6)) / 3)
    assert metric.low <= metric.value <= metric.high


def test_bleu_without_a_common_phrase_is_smoothed_as_sacrebleu_does() -> None:
    from sacrebleu import corpus_bleu

    answers, references = ["Return a string."] * 3, ["Return the first string of all."] * 3
    assert bleu("b", answers, references, 0).value == pytest.approx(corpus_bleu(answers, [references]).score)


def test_bleu_is_sacrebleus_corpus_score() -> None:
    from sacrebleu import corpus_bleu

    answers = ["the cat sat on a mat", "a dog barked at the sun", "rain fell all day"]
    metric = bleu("answer_bleu", answers, REFERENCES, seed=0)
    assert metric.value == pytest.approx(corpus_bleu(answers, [REFERENCES]).score)
    assert metric.low <= metric.value <= metric.high


def test_empty_answers_score_nothing() -> None:
    assert rouge_l("r", ["", "", ""], REFERENCES, seed=0).value == 0
    assert bleu("b", ["", "", ""], REFERENCES, seed=0).value == 0
