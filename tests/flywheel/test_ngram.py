from __future__ import annotations

from collections import Counter, defaultdict
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.metrics.ngram import bits

VOCAB = 5
START = -1
documents = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=12), max_size=8)
few = settings(max_examples=60, deadline=None)


def discount(counts: Counter[tuple[int, ...]], count: int) -> float:
    of = Counter(counts.values())
    d = {1: 0.5, 2: 1.0, 3: 1.5}
    if all(of[c] for c in (1, 2, 3, 4)):
        y = of[1] / (of[1] + 2 * of[2])
        estimate = {c: c - (c + 1) * y * of[c + 1] / of[c] for c in (1, 2, 3)}
        d = estimate if min(estimate.values()) > 0 else d
    return d[min(count, 3)]


def reference_bits(train: list[list[int]], document: list[int], vocab_size: int, order: int) -> float:
    """The textbook in dictionaries: counts by walking, probabilities by recursion."""
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    left: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for d in train:
        for n in range(1, order + 1):
            for i in range(len(d) - n + 1):
                counts[n][tuple(d[i : i + n])] += 1
                left[tuple(d[i : i + n])].add(d[i - 1] if i else START)
    for n in range(1, order):
        counts[n] = Counter({gram: len(left[gram]) for gram in counts[n]})

    def probability(context: tuple[int, ...], token: int) -> float:
        n = len(context) + 1
        shorter = probability(context[1:], token) if context else 1 / vocab_size
        following = {gram: c for gram, c in counts[n].items() if gram[:-1] == context}
        if not following:
            return shorter
        total = sum(following.values())
        freed = sum(discount(counts[n], c) for c in following.values())
        c = following.get((*context, token), 0)
        return (c - discount(counts[n], c) if c else 0.0) / total + freed / total * shorter

    return -sum(log2(probability(tuple(document[max(0, i - order + 1) : i]), t)) for i, t in enumerate(document))


@few
@given(train=documents, heldout=documents, order=st.integers(1, 5))
def test_equals_the_textbook(train: list[list[int]], heldout: list[list[int]], order: int) -> None:
    expected = [reference_bits(train, d, VOCAB, order) for d in heldout]
    np.testing.assert_allclose(bits(train, heldout, VOCAB, order), expected, rtol=0, atol=1e-9)


def test_equals_the_textbook_where_discounts_are_estimated() -> None:
    tokens = (np.random.default_rng(0).geometric(0.25, 1500) % 20).tolist()
    train, document = [tokens[:700], tokens[700:1400]], tokens[1400:]
    expected = reference_bits(train, document, 20, 3)
    assert bits(train, [document], 20, 3)[0] == pytest.approx(expected, abs=1e-9)


@few
@given(train=documents, context=st.lists(st.integers(0, VOCAB - 1), max_size=6))
def test_probabilities_sum_to_one(train: list[list[int]], context: list[int]) -> None:
    total = bits(train, [context, *([*context, token] for token in range(VOCAB))], VOCAB)
    assert np.exp2(total[0] - total[1:]).sum() == pytest.approx(1)


def test_unseen_tokens_have_mass() -> None:
    assert np.isfinite(bits([[0, 1, 0, 1, 0]], [[3, 2, 4]], VOCAB)).all()


def test_empty_documents_cost_nothing_and_nothing_seen_is_uniform() -> None:
    assert bits([], [[], [1, 2], []], 8).tolist() == [0, 6, 0]


def test_longer_contexts_help_on_regular_text() -> None:
    train, heldout = [[0, 1, 2, 0, 2, 1] * 50], [[0, 1, 2, 0, 2, 1] * 5]
    assert bits(train, heldout, VOCAB, 5)[0] < bits(train, heldout, VOCAB, 2)[0] < bits(train, heldout, VOCAB, 1)[0]


def test_a_large_vocabulary_fits() -> None:
    top = 262_143
    assert bits([[top, 1, top, 1]], [[top, 1]], top + 1)[0] < bits([[top, 1, top, 1]], [[1, 1]], top + 1)[0]


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_refuses_ids_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(ValueError, match="token ids"):
        bits([[0, token]], [[0]], VOCAB)
