"""What answers and references have in common: BLEU and chrF by sacrebleu, ROUGE by rouge-score. Nothing is downloaded.

BLEU and chrF belong to a whole set of answers, not to one. Each answer carries its counts of n-grams; from their sums
come the score, its interval and the comparison of two models, for all resamples at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from flywheel.metrics import examples
from flywheel.metrics.base import Exam
from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.scores import Floats, Scores

RougeType = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
ROUGE: dict[RougeType, str] = {
    "rouge1": "rouge_1",
    "rouge2": "rouge_2",
    "rougeL": "rouge_l",
    "rougeLsum": "rouge_lsum",
}
"""rouge-score's name → the metric's."""
Tokenizer = Literal["13a", "intl", "zh", "char", "none"]
"""Those of sacrebleu that need neither a dictionary nor a download."""
CHRF = ("chrf", "chrf_plus", "chrf_plus_plus")
"""Names by the order of word n-grams, as sacrebleu writes them: chrF, chrF+, chrF++."""
POINTS = "points of 100"

# ---------------------------------------------------------------- what a recipe may name


def bleu(exam: Exam, *, tokenize: Tokenizer = "13a", lowercase: bool = False) -> list[Metric]:
    """`bleu` of the greedy answers to held-out rows, 0 to 100."""
    found = examples.greedy(exam, "bleu")
    return [corpus_bleu("bleu", found.given, found.references, exam.seed, tokenize, lowercase)]


def chrf(
    exam: Exam, *, word_order: Annotated[int, Field(ge=0, le=2)] = 0, beta: Annotated[int, Field(ge=1)] = 2
) -> list[Metric]:
    """`chrf` of the greedy answers to held-out rows, 0 to 100; with `word_order: 2` it is `chrf_plus_plus`."""
    found = examples.greedy(exam, "chrf")
    return [corpus_chrf(CHRF[word_order], found.given, found.references, exam.seed, word_order, beta)]


def rouge(exam: Exam, *, types: Sequence[RougeType] = tuple(ROUGE), use_stemmer: bool = False) -> list[Metric]:
    """`rouge_1`, `rouge_2`, `rouge_l` and `rouge_lsum` of the greedy answers to held-out rows, 0 to 1."""
    found = examples.greedy(exam, "rouge")
    return rouge_scores({kind: ROUGE[kind] for kind in types}, found.given, found.references, exam.seed, use_stemmer)


# ---------------------------------------------------------------- strings in, metrics out


def corpus_bleu(
    name: str,
    answers: Sequence[str],
    references: Sequence[str],
    seed: int,
    tokenize: Tokenizer = "13a",
    lowercase: bool = False,
) -> Metric:
    """Corpus BLEU (Papineni et al. 2002) as sacrebleu's `corpus_bleu` gives it, in [0, 100], one reference for each."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize=tokenize, lowercase=lowercase, force=True)  # no warning of texts that end in " ."
    scores = Scores(_statistics(metric, answers, references), "bleu")
    return from_scores(name, "higher", scores, seed, unit=POINTS, detail=_detail(metric, scores))


def corpus_chrf(
    name: str, answers: Sequence[str], references: Sequence[str], seed: int, word_order: int = 0, beta: int = 2
) -> Metric:
    """Corpus chrF (Popović 2015, 2017) as sacrebleu's `corpus_chrf` gives it, in [0, 100], one reference for each.

    Character n-grams up to 6 and word n-grams up to `word_order`; recall counts `beta` times as much as precision.
    """
    from sacrebleu.metrics.chrf import CHRF as Chrf

    metric = Chrf(word_order=word_order, beta=beta)
    fixed = np.array([metric.char_order, word_order, beta], dtype=np.float64)
    scores = Scores(_statistics(metric, answers, references), "chrf", fixed=fixed)
    return from_scores(name, "higher", scores, seed, unit=POINTS, detail=_detail(metric, scores))


def rouge_scores(
    types: dict[RougeType, str], answers: Sequence[str], references: Sequence[str], seed: int, use_stemmer: bool = False
) -> list[Metric]:
    """Mean F-measures of ROUGE (Lin 2004) by rouge-score, in [0, 1], under the names that `types` gives them.

    Its tokenizer sees the letters a to z and digits alone: text in other scripts scores 0. `rougeLsum` takes lines for
    sentences.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(types), use_stemmer=use_stemmer)
    scored = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    detail = {"library": f"rouge-score {version('rouge-score')}", "use_stemmer": use_stemmer, "examples": len(scored)}
    found = []
    for kind, name in types.items():
        values = np.array([score[kind].fmeasure for score in scored], dtype=np.float64)
        scores = Scores(np.stack([values, np.ones_like(values)], axis=1))
        found.append(from_scores(name, "higher", scores, seed, unit="share", detail=detail))
    return found


def rouge_l(name: str, answers: Sequence[str], references: Sequence[str], seed: int) -> Metric:
    """Mean F-measure of the longest common subsequence, in [0, 1], without stemming."""
    return rouge_scores({"rougeL": name}, answers, references, seed)[0]


def _statistics(metric: Any, answers: Sequence[str], references: Sequence[str]) -> Floats:
    """What sacrebleu counts in each pair, (answers, k), and what its own significance tests resample."""
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers and {len(references)} references")
    return np.array(metric._extract_corpus_statistics(answers, [references]), dtype=np.float64)


def _detail(metric: Any, scores: Scores) -> dict[str, Any]:
    """The signature of what was counted; sacrebleu knows it after counting."""
    return {"signature": str(metric.get_signature()), "examples": len(scores)}


# ---------------------------------------------------------------- sums of statistics in, scores out


def bleu_of(parts: Floats, weights: Floats, fixed: Floats | None = None) -> Floats:
    """Corpus BLEU for each weighting of the answers, (draws,), smoothed as sacrebleu does by default (`exp`).

    `parts` (answers, 10): words of the answer and of the reference, matching n-grams of order 1 to 4, all of them.
    """
    sums = weights @ parts
    lengths, references, matches, totals = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:10]
    halvings = np.cumsum(matches == 0, axis=1)  # each order without a match counts half as much as the one before
    shares = np.where(matches == 0, 0.5**halvings, matches) / np.maximum(totals, 1)
    scored = np.logical_and((totals > 0).all(axis=1), (matches > 0).any(axis=1))
    mean = np.exp(np.log(np.where(scored[:, None], shares, 1)).mean(axis=1))
    brevity = np.exp(np.minimum(0, 1 - references / np.maximum(lengths, 1)))
    found: Floats = np.where(scored, 100 * brevity * mean, 0)
    return found


def chrf_of(parts: Floats, weights: Floats, fixed: Floats | None = None) -> Floats:
    """Corpus chrF for each weighting of the answers, (draws,), over the orders that both sides have n-grams of.

    `parts` (answers, 3 * orders): n-grams of the answer, of the reference, and of both, for each order. `fixed`:
    orders of character and word n-grams, beta.
    """
    squared = 4.0 if fixed is None else float(fixed[2]) ** 2
    answer, reference, both = np.moveaxis((weights @ parts).reshape(len(weights), -1, 3), 2, 0)
    seen = (answer > 0) & (reference > 0)
    orders = np.maximum(seen.sum(axis=1), 1)
    precision = np.where(seen, both / np.maximum(answer, 1), 0).sum(axis=1) / orders
    recall = np.where(seen, both / np.maximum(reference, 1), 0).sum(axis=1) / orders
    bottom = squared * precision + recall
    found: Floats = 100 * (1 + squared) * precision * recall / np.where(bottom > 0, bottom, 1)
    return found
