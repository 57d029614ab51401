"""Metrics of language models: bits per byte of held-out documents, ROUGE-L and BLEU of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flywheel.metrics.metric import Metric, bootstrap_mean, bootstrap_ratio

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEUScore

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
    bits = np.zeros(len(documents.ids))
    for first in range(0, len(documents.ids), 64):  # bounds the memory that windows take
        windows, score_from, owner = sliding_windows(documents.ids[first : first + 64], context)
        for index, nats in zip(owner, scorer.log_likelihood(windows, score_from), strict=True):
            bits[first + index] -= nats.sum() / log(2)
    sizes = np.maximum(np.array(documents.sizes, dtype=np.float64), 1)
    return bootstrap_ratio("bits_per_byte", "lower", bits, sizes, seed)


def sliding_windows(documents: Sequence[Ids], context: int) -> tuple[list[Ids], list[int], list[int]]:
    """Windows of at most `context` tokens, from which token on each is scored, and the document it belongs to.

    Windows start half a context apart, the last one ends with its document.
    """
    windows: list[Ids] = []
    score_from: list[int] = []
    owner: list[int] = []
    for index, ids in enumerate(documents):
        scored = 1
        while scored < len(ids):
            end = min(len(ids), max(context, scored + context - context // 2))
            start = max(0, end - context)
            windows.append(ids[start:end])
            score_from.append(scored - start)
            owner.append(index)
            scored = end
    return windows, score_from, owner


def rouge_l(name: str, answers: Sequence[str], references: Sequence[str], seed: int) -> Metric:
    """Mean F-measure of the longest common subsequence (Lin 2004) by rouge-score, in [0, 1], without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    scores = [
        scorer.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    return bootstrap_mean(name, "higher", np.array(scores, dtype=np.float64), seed)


def bleu(name: str, answers: Sequence[str], references: Sequence[str], seed: int) -> Metric:
    """Corpus BLEU (Papineni et al. 2002) by sacrebleu with its default tokenizer, in [0, 100], one reference for each.

    The interval comes from 1,000 resamples of the examples' n-gram statistics.
    """
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(effective_order=True)
    scores = [metric.sentence_score(a, [r]) for a, r in zip(answers, references, strict=True)]
    statistics = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=np.int64)
    picks = np.random.default_rng(seed).integers(0, len(scores), size=(1000, len(scores)))
    resampled = [_corpus_bleu(statistics[pick].sum(axis=0)) for pick in picks]
    low, high = np.percentile([score.score for score in resampled], [2.5, 97.5])
    return Metric(name, _corpus_bleu(statistics.sum(axis=0)).score, float(low), float(high), "higher")


def _corpus_bleu(statistics: NDArray[np.int64]) -> BLEUScore:
    from sacrebleu.metrics.bleu import BLEU

    values: list[Any] = statistics.tolist()
    return BLEU.compute_bleu(values[:4], values[4:8], values[8], values[9], smooth_method="exp")
