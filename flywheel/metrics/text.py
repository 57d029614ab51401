"""Metrics of language models by the likelihood of text: bits per byte of held-out documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flywheel.metrics.metric import Metric, bootstrap_ratio

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class Scorer(Protocol):
    """A predictor that knows how likely text is; torch and onnxruntime both offer it."""

    def log_likelihood(self, windows: Sequence[Ids], score_from: Sequence[int]) -> list[Floats]:
        """Log-probability in nats of `window[score_from:]`, shape (len(window) - score_from,), for each window."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Held-out documents: token ids with the start and end token, and the size of each in UTF-8 bytes."""

    ids: Sequence[Ids]
    sizes: Sequence[int]


def bits_per_byte(scorer: Scorer, documents: Documents, context: int, seed: int) -> Metric:
    """Total bits of all tokens but each document's first, over total UTF-8 bytes; resampled by document.

    Every token is scored once, with at least half a context before it where the document has that much.
    """
    nats = log_likelihoods(scorer, documents.ids, [1] * len(documents.ids), context)
    sizes = np.maximum(np.array(documents.sizes, dtype=np.float64), 1)
    return bootstrap_ratio("bits_per_byte", "lower", -nats / log(2), sizes, seed)


def log_likelihoods(scorer: Scorer, documents: Sequence[Ids], starts: Sequence[int], context: int) -> Floats:
    """Log-probability in nats of all tokens of each document from its start on, (documents,), whatever its length."""
    nats = np.zeros(len(documents))
    for first in range(0, len(documents), 64):  # bounds the memory that windows take
        part = slice(first, first + 64)
        windows, score_from, owner = sliding_windows(documents[part], context, starts[part])
        for index, found in zip(owner, scorer.log_likelihood(windows, score_from), strict=True):
            nats[first + index] += found.sum()
    return nats


def sliding_windows(
    documents: Sequence[Ids], context: int, starts: Sequence[int] | None = None
) -> tuple[list[Ids], list[int], list[int]]:
    """Windows of at most `context` tokens, from which token on each is scored, and the document it belongs to.

    Windows start half a context apart, the last one ends with its document. Tokens before a document's start (default
    1) are only read.
    """
    windows: list[Ids] = []
    score_from: list[int] = []
    owner: list[int] = []
    for index, (ids, scored) in enumerate(zip(documents, starts or [1] * len(documents), strict=True)):
        while scored < len(ids):
            end = min(len(ids), max(context, scored + context - context // 2))
            start = max(0, end - context)
            windows.append(ids[start:end])
            score_from.append(scored - start)
            owner.append(index)
            scored = end
    return windows, score_from, owner
