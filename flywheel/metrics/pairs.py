"""Metrics of pictures with texts: finding one by the other, and captions against those that people wrote.

No room pairs pictures with texts yet, so a recipe cannot name these metrics.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.scores import Floats, Scores

Array = NDArray[Any]
Vector = dict[tuple[str, ...], float]

ORDERS = 4
"""Longest n-grams of BLEU-4 and CIDEr-D."""
SIGMA = 6.0
"""Words by which a caption may well be longer or shorter than a reference, for CIDEr-D."""
_WORD = re.compile(r"[\w'\u2019]+")


# ---------------------------------------------------------------- retrieval


def recall_at_k(
    images: Array, texts: Array, owners: Sequence[int] | None = None, ks: Sequence[int] = (1, 5, 10), seed: int = 0
) -> list[Metric]:
    """`image_to_text_recall_at_K` and `text_to_image_recall_at_K`: what belongs together is among the K most alike.

    By the cosine of embeddings (images, width) and (texts, width). `owners` (texts,) gives the image that each text
    belongs to, in order where there is none; an image with several texts counts as found by its first. What is as much
    alike as the right one ranks before it, so that equal embeddings find nothing.
    """
    own = np.arange(len(texts)) if owners is None else np.asarray(owners)
    if own.shape != (len(texts),) or not np.array_equal(np.unique(own), np.arange(len(images))):
        raise ValueError(f"owners of {len(texts)} texts must name each of {len(images)} images")
    alike = _unit(images) @ _unit(texts).T
    mine = own[None, :] == np.arange(len(images))[:, None]
    best = np.where(mine, alike, -np.inf).max(axis=1)
    ranks = {
        "image_to_text": ((alike >= best[:, None]) & ~mine).sum(axis=1),
        "text_to_image": ((alike >= alike[own, np.arange(len(texts))]) & ~mine).sum(axis=0),
    }
    candidates = {"image_to_text": len(texts), "text_to_image": len(images)}
    return [
        _mean(f"{way}_recall_at_{k}", (rank < k).astype(np.float64), seed, "share", {"candidates": candidates[way]})
        for way, rank in ranks.items()
        for k in ks
    ]


def _unit(embeddings: Array) -> Floats:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    found: Floats = embeddings.astype(np.float64) / np.maximum(lengths, 1e-12)
    return found


# ---------------------------------------------------------------- captions


def caption_metrics(captions: Sequence[str], references: Sequence[Sequence[str]], seed: int = 0) -> list[Metric]:
    """`caption_bleu_4` (0 to 100), `caption_rouge_l` (0 to 1) and `caption_cider_d` (0 to 10), one caption a picture.

    Each picture has one reference or more. Figures of COCO's own tool differ in the first two, as it cuts and smooths
    in another way: `detail` has sacrebleu's signature. CIDEr-D takes small letters and no punctuation.
    """
    return [
        _bleu(captions, references, seed),
        _rouge_l(captions, references, seed),
        _mean("caption_cider_d", cider_d(captions, references), seed, "", {}),
    ]


def _bleu(captions: Sequence[str], references: Sequence[Sequence[str]], seed: int) -> Metric:
    """sacrebleu with small letters; pictures may differ in their number of references."""
    from sacrebleu.metrics.bleu import BLEU

    metric: Any = BLEU(lowercase=True, force=True)
    most = max(map(len, references))
    streams = [[several[i] if i < len(several) else None for several in references] for i in range(most)]
    # What sacrebleu's own significance tests resample; its signature knows the references only after this.
    parts = np.array(metric._extract_corpus_statistics(captions, streams), dtype=np.float64)
    detail = {"signature": str(metric.get_signature()), "examples": len(captions)}
    scores = Scores(parts, "bleu")
    return from_scores("caption_bleu_4", "higher", scores, seed, unit="points of 100", detail=detail)


def _rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]], seed: int) -> Metric:
    """rouge-score's F-measure against the reference that is most alike."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(captions, references, strict=True)
    values = np.array([scorer.score_multi(several, caption)["rougeL"].fmeasure for caption, several in pairs])
    return _mean("caption_rouge_l", values, seed, "share", {"library": f"rouge-score {version('rouge-score')}"})


class _Weighted(NamedTuple):
    """A sentence as vectors of weighted n-grams."""

    vectors: list[Vector]
    """For each order."""
    lengths: list[float]
    """Of these vectors."""
    words: int


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """CIDEr-D of each caption, (captions,), in [0, 10]; Vedantam et al. 2015, section 4.

    N-grams weigh the more the fewer pictures have them in their references, so it takes pictures by the dozen: for a
    single one all weights are 0.
    """
    counted = [[_ngrams(reference) for reference in several] for several in references]
    having = Counter(gram for several in counted for gram in set().union(*several))
    pictures = log(len(references))
    found = []
    for caption, several in zip(captions, counted, strict=True):
        own = _weighted(_ngrams(caption), having, pictures)
        found.append(np.mean([_likeness(own, _weighted(counts, having, pictures)) for counts in several]))
    return np.array(found, dtype=np.float64)


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1))


def _weighted(counts: Counter[tuple[str, ...]], having: Counter[tuple[str, ...]], pictures: float) -> _Weighted:
    vectors: list[Vector] = [{} for _ in range(ORDERS)]
    for gram, count in counts.items():
        vectors[len(gram) - 1][gram] = count * (pictures - log(max(1, having[gram])))
    lengths = [sum(weight**2 for weight in vector.values()) ** 0.5 for vector in vectors]
    return _Weighted(vectors, lengths, sum(count for gram, count in counts.items() if len(gram) == 1))


def _likeness(caption: _Weighted, reference: _Weighted) -> float:
    """Ten times the mean over orders of clipped cosines, less for another length."""
    total = 0.0
    for n in range(ORDERS):
        own, other, size = caption.vectors[n], reference.vectors[n], caption.lengths[n] * reference.lengths[n]
        shared = sum(min(weight, other[gram]) * other[gram] for gram, weight in own.items() if gram in other)
        total += shared / size if size else 0.0
    longer = caption.words - reference.words
    return float(10 * total / ORDERS * np.exp(-(longer**2) / (2 * SIGMA**2)))


def _mean(name: str, values: Floats, seed: int, unit: str, detail: dict[str, Any]) -> Metric:
    scores = Scores(np.stack([values, np.ones_like(values)], axis=1))
    return from_scores(name, "higher", scores, seed, unit=unit, detail={"examples": len(values), **detail})
