"""Metrics of masked language models, and the model of neighbours that they must beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flywheel.metrics.metric import Metric, bootstrap_ratio

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class Filler(Protocol):
    """A predictor that fills in masks; torch and onnxruntime both offer it."""

    def at_masks(self, prompts: Sequence[Ids]) -> Iterator[NDArray[np.float32]]:
        """Logits (masks, vocab) of each prompt."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A text with some of its tokens masked."""

    ids: Ids
    """Token ids (seq,), the mask token where something is to be filled in."""
    answers: Ids
    """What was there, (masks,), at least one."""
    document: int
    """Which document it is a piece of."""


def masked_metrics(filler: Filler, gaps: Sequence[Gap], documents: int, seed: int) -> list[Metric]:
    """`masked_bits_per_token` (cross-entropy of the masked tokens in bits) and `masked_accuracy`, by document."""
    bits, right, count = np.zeros(documents), np.zeros(documents), np.zeros(documents)
    ordered = sorted(gaps, key=lambda gap: len(gap.ids))
    for gap, logits in zip(ordered, filler.at_masks([gap.ids for gap in ordered]), strict=True):
        scores = logits.astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        chosen = scores[np.arange(len(scores)), gap.answers] - np.log(np.exp(scores).sum(axis=1))
        bits[gap.document] -= chosen.sum() / log(2)
        right[gap.document] += (scores.argmax(axis=1) == gap.answers).sum()
        count[gap.document] += len(gap.answers)
    seen = count > 0
    return [
        bootstrap_ratio("masked_bits_per_token", "lower", bits[seen], count[seen], seed),
        bootstrap_ratio("masked_accuracy", "higher", right[seen], count[seen], seed),
    ]


class Neighbours:
    """A token by the tokens to its left and right: counts of both neighbours, of the left one, and of tokens alone.

    Each falls back on the next by Witten-Bell smoothing (Chen & Goodman 1999, section 2.6), the last one on the uniform
    distribution. The likeliest token is the most frequent one of the longest context that was seen.
    """

    def __init__(self, documents: Sequence[Ids], vocab_size: int) -> None:
        self._vocab_size = vocab_size
        tokens, contexts = _with_contexts(documents, vocab_size)
        self._levels = [_Level(context * vocab_size + tokens, vocab_size) for context in contexts]

    def score(self, documents: Sequence[Ids], places: Sequence[Ids]) -> tuple[Floats, NDArray[np.bool_]]:
        """Bits of the tokens at `places` of each document, and whether the likeliest one is right; both (places,)."""
        tokens, contexts = _with_contexts(documents, self._vocab_size)
        starts = np.cumsum([0, *map(len, documents)])[:-1]
        at = np.concatenate([np.empty(0, np.int64), *(start + p for start, p in zip(starts, places, strict=True))])
        probability, best = np.full(len(at), 1.0 / self._vocab_size), np.zeros(len(at), np.int64)
        for level, context in zip(self._levels, contexts, strict=True):
            probability, best = level.refine(context[at], tokens[at], probability, best)
        return -np.log2(probability), best == tokens[at]


class _Level:
    """Tokens counted by one kind of context. `keys` are context * vocab_size + token."""

    def __init__(self, keys: Ids, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._keys, self._counts = np.unique(keys, return_counts=True)
        self._contexts, first, self._kinds = np.unique(self._keys // vocab_size, return_index=True, return_counts=True)
        self._total = np.add.reduceat(self._counts, first) if len(first) else np.empty(0, np.int64)
        order = np.lexsort((-self._counts, self._keys // vocab_size))  # most frequent first, of equals the lowest id
        self._best = self._keys[order[first]] % vocab_size

    def refine(self, context: Ids, token: Ids, below: Floats, best: Ids) -> tuple[Floats, Ids]:
        """Probability of each token, and the likeliest one, given those of the shorter context."""
        if not len(self._keys):
            return below, best
        where, seen = _find(self._contexts, context)
        at, known = _find(self._keys, context * self._vocab_size + token)
        count = np.where(known, self._counts[at], 0)
        kinds, total = self._kinds[where], self._total[where]
        probability = np.where(seen, (count + kinds * below) / (total + kinds), below)
        return probability, np.where(seen, self._best[where], best)


def _find(keys: Ids, wanted: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """Place of each wanted key in sorted `keys`, and whether it is there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def _with_contexts(documents: Sequence[Ids], vocab_size: int) -> tuple[Ids, list[Ids]]:
    """All tokens, and the contexts of each: none, its left neighbour, both; `vocab_size` stands beyond an end."""
    border = np.array([vocab_size])
    padded = [np.concatenate([border, ids, border]) for ids in documents]
    tokens, left, right = (
        np.concatenate([np.empty(0, np.int64), *(ids[start : len(ids) - 2 + start] for ids in padded)])
        for start in (1, 0, 2)
    )
    return tokens, [np.zeros_like(tokens), left, (left + 1) * (vocab_size + 1) + right]
