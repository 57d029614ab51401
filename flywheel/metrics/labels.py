"""Metrics of labels: how often a model names the right class, and whether it knows how sure it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flywheel.metrics import examples
from flywheel.metrics.base import Exam
from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.scores import RESAMPLES, Floats, Scores, draws
from flywheel.record import Record

BINS = 15
"""Bins of equal width, as Guo et al. 2017 and torchmetrics have it."""
MACRO = ("macro_precision", "macro_recall", "macro_f1")

# ---------------------------------------------------------------- what a recipe may name


def labels(exam: Exam, *, max_words: Annotated[int, Field(ge=1)] = 3) -> list[Metric]:
    """`accuracy`, `macro_precision`, `macro_recall` and `macro_f1` of greedy answers that name a class.

    A row's class is its answer, if that has at most `max_words` words, else its `label`; it is asked by its prompt or,
    where it has none, by its text. An answer that is no class of the held-out rows is wrong.
    """
    rows = examples.spread([row for row in exam.heldout if label(row, max_words) is not None], exam.num_samples)
    if not rows:
        raise examples.lacking("labels", "no row with a label or a short answer", f"answers of up to {max_words} words")
    wanted = [label(row, max_words) or "" for row in rows]
    return classification(examples.ask(exam, [_asked(row) for row in rows]), wanted, exam.seed)


def label(row: Record, max_words: int) -> str | None:
    """The class of a row; None where it has none that can be asked for."""
    full = examples.answered(row)
    if examples.has_answer(full) and len(examples.reference(full).split()) <= max_words:
        return examples.reference(full)
    return row.label if full.prompt or full.text or full.messages else None


def _asked(row: Record) -> Record:
    full = examples.answered(row)
    return (
        full if examples.has_answer(full) else Record(row.id, prompt=full.prompt or full.text, messages=full.messages)
    )


# ---------------------------------------------------------------- strings and arrays in, metrics out


def classification(answers: Sequence[str], wanted: Sequence[str], seed: int) -> list[Metric]:
    """Accuracy and, averaged over the classes that are wanted, precision, recall and F1, all in [0, 1], as
    scikit-learn has them. Case, spaces around and a full stop at the end make no difference."""
    given, right = [_form(answer) for answer in answers], [_form(name) for name in wanted]
    classes = sorted(set(right))
    hits = np.array([g == r for g, r in zip(given, right, strict=True)], dtype=np.float64)
    detail = {"examples": len(right), "classes": len(classes), "unknown_answers": sum(g not in classes for g in given)}
    scores = Scores(np.stack([hits, np.ones_like(hits)], axis=1))
    metrics = [from_scores("accuracy", "higher", scores, seed, unit="share", detail=detail)]
    parts = macro_parts(given, right)
    for place, name in enumerate(MACRO):
        scores = Scores(parts, "macro", fixed=np.array([place], dtype=np.float64))
        metrics.append(from_scores(name, "higher", scores, seed, unit="share", detail=detail))
    return metrics


def macro_parts(given: Sequence[str], right: Sequence[str]) -> Floats:
    """(examples, 3 * classes): whether an answer is right, is given and is wanted, for each wanted class."""
    classes = np.array(sorted(set(right)))
    said, wanted = np.array(given)[:, None] == classes, np.array(right)[:, None] == classes
    return np.hstack([said & wanted, said, wanted]).astype(np.float64)


def macro_of(parts: Floats, weights: Floats, fixed: Floats | None = None) -> Floats:
    """Macro-averaged F1, or what `fixed` says (0 precision, 1 recall, 2 F1), for each weighting, (draws,).

    The mean is over classes that are given or wanted in a draw; what would divide by zero is 0.
    """
    right, given, wanted = np.moveaxis((weights @ parts).reshape(len(weights), 3, -1), 1, 0)
    which = 2 if fixed is None else int(fixed[0])
    top, bottom = ((right, given), (right, wanted), (2 * right, given + wanted))[which]
    seen = given + wanted > 0
    share = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 0)
    found: Floats = share.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return found


def calibration_error(name: str, confidence: Floats, right: NDArray[np.bool_], seed: int, bins: int = BINS) -> Metric:
    """Expected calibration error of the top class (Guo et al. 2017), in [0, 1]: the mean distance of confidence and
    accuracy over bins of equal width. `confidence` and `right` are (examples,).

    Resampling raises every such distance; the interval is the spread of the redrawn values around their median, laid
    around the value.
    """
    scores = Scores(ece_parts(confidence, right, bins), "calibration")
    value = scores.value()
    low, middle, high = np.percentile(scores.values(draws(len(scores), RESAMPLES, seed)), [2.5, 50, 97.5])
    detail = {"examples": len(scores), "bins": bins}
    low, high = max(0.0, value + float(low - middle)), min(1.0, value + float(high - middle))
    return Metric(name, value, low, high, "lower", unit="share", detail=detail, scores=scores)


def ece_parts(confidence: Floats, right: NDArray[np.bool_], bins: int) -> Floats:
    """(examples, 2 * bins): the confidence of each in its bin, and there whether it is right. Bins end at, and with,
    their upper edge."""
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    inside = np.eye(bins)[places]
    return np.hstack([inside * confidence[:, None], inside * right[:, None]])


def ece_of(parts: Floats, weights: Floats, fixed: Floats | None = None) -> Floats:
    """Expected calibration error for each weighting, (draws,)."""
    confidence, right = np.split(weights @ parts, 2, axis=1)
    found: Floats = np.abs(confidence - right).sum(axis=1) / weights.sum(axis=1)
    return found


def _form(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
