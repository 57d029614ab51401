"""Perplexity of held-out documents, and how many bits a byte of them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log

import numpy as np

from flywheel.metrics import examples
from flywheel.metrics.asking import is_document, speaker_of
from flywheel.metrics.base import Exam, Likelihood
from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.scores import Floats, Scores, ratio


def perplexity(exam: Exam) -> list[Metric]:
    """`word_perplexity`, `token_perplexity` and `text_bits_per_byte` of the held-out rows that are documents."""
    texts = [row.text or "" for row in exam.heldout if is_document(row)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise examples.lacking("perplexity", "no document", "rows with `text`")
    found = speaker_of(exam).log_likelihood([""] * len(texts), texts)
    return perplexities(texts, found, exam.seed)


def perplexities(texts: Sequence[str], found: Sequence[Likelihood], seed: int) -> list[Metric]:
    """The three from the likelihood of each text, without what it would cost to end.

    `word_perplexity` (by words between white space) and `text_bits_per_byte` (by UTF-8 bytes) compare models with any
    tokenizers; `token_perplexity` only models with the same one. Resampled by document.
    """
    nats = np.array([-likelihood.nats for likelihood in found])
    words = np.array([max(1, len(text.split())) for text in texts], dtype=np.float64)
    tokens = np.array([likelihood.tokens for likelihood in found], dtype=np.float64)
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.float64)
    bits = Scores(np.stack([nats / log(2), sizes], axis=1))
    detail = {"examples": len(texts), "depends_on_tokenizer": False}
    return [
        _perplexity("word_perplexity", nats, words, seed),
        _perplexity("token_perplexity", nats, tokens, seed),
        from_scores("text_bits_per_byte", "lower", bits, seed, unit="bits/byte", detail=detail),
    ]


def _perplexity(name: str, nats: Floats, counts: Floats, seed: int) -> Metric:
    detail = {"examples": len(nats), "depends_on_tokenizer": name == "token_perplexity"}
    scores = Scores(np.stack([nats, counts], axis=1), "perplexity")
    found = from_scores(name, "lower", scores, seed, detail=detail)
    return replace(found, scores=None) if detail["depends_on_tokenizer"] else found  # a champion may have another one


def perplexity_of(parts: Floats, weights: Floats, fixed: Floats | None = None) -> Floats:
    """exp of nats for each of what is counted, for each weighting of the documents, (draws,)."""
    found: Floats = np.exp(ratio(parts, weights))
    return found
