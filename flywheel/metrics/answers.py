"""Metrics of single answers: right or wrong as in SQuAD, varied or repetitive, long or short, easy or hard to read.

Words are what stands between white space, in scripts without spaces each character, unless said otherwise.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from flywheel.metrics import examples
from flywheel.metrics.base import Exam
from flywheel.metrics.metric import Better, Metric, from_scores
from flywheel.metrics.scores import Floats, Scores
from flywheel.process.text import words

Order = Annotated[int, Field(ge=1, le=10)]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)|\n\s*\n")
_SILENT = re.compile(r"(?:[^laeiouy]es|ed|[^laeiouy]e)$")
_HIATUS = re.compile(r"(?<=[aeiouy])(?=ing)")
_VOWELS = re.compile(r"[aeiouy]{1,2}")

# ---------------------------------------------------------------- what a recipe may name


def exact_match(exam: Exam, *, normalize: bool = True) -> list[Metric]:
    """`exact_match`: share of greedy answers that are the reference, as SQuAD compares them, or else to the letter."""
    found = examples.greedy(exam, "exact_match")
    form: Callable[[str], str] = squad_form if normalize else str
    right = [form(g) == form(r) for g, r in zip(found.given, found.references, strict=True)]
    return [_mean("exact_match", "higher", right, exam.seed, unit="share", normalize=normalize)]


def token_f1(exam: Exam) -> list[Metric]:
    """`token_f1`: mean F1 of the words that greedy answers share with their references, as SQuAD counts them."""
    found = examples.greedy(exam, "token_f1")
    values = [squad_f1(g, r) for g, r in zip(found.given, found.references, strict=True)]
    return [_mean("token_f1", "higher", values, exam.seed, unit="share")]


def answer_length(exam: Exam) -> list[Metric]:
    """`answer_words` and `answer_characters` of greedy answers, and `answer_length_ratio`: all their words over all
    words of the references."""
    found = examples.greedy(exam, "answer_length")
    long, wanted = _counts(found.given), _counts(found.references)
    characters = [len(text) for text in found.given]
    metrics = [
        _mean("answer_words", "neither", long, exam.seed, unit="words"),
        _mean("answer_characters", "neither", characters, exam.seed, unit="characters"),
    ]
    if wanted.all():  # else a resample may have no words to compare with
        ratio = Scores(np.stack([long, wanted], axis=1))
        metrics.append(from_scores("answer_length_ratio", "neither", ratio, exam.seed, detail={"examples": len(long)}))
    return metrics


def distinct(exam: Exam, *, n: Sequence[Order] = (1, 2, 3)) -> list[Metric]:
    """`distinct_1`, `distinct_2` and `distinct_3` of the greedy answers to held-out rows."""
    found = examples.greedy(exam, "distinct")
    return [distinct_ngrams(found.given, order) for order in n]


def repetition(exam: Exam, *, n: Order = 4) -> list[Metric]:
    """`repetition_4`: mean share of an answer's n-grams that stand in it before (seq-rep-n, Welleck et al. 2020)."""
    found = examples.greedy(exam, "repetition")
    values = [repeated_share(text, n) for text in found.given]
    return [_mean(f"repetition_{n}", "lower", values, exam.seed, unit="share")]


def readability(exam: Exam) -> list[Metric]:
    """`flesch_reading_ease` and `flesch_kincaid_grade` of the greedy answers that have words, for English.

    Nothing where no answer has a word.
    """
    found = examples.greedy(exam, "readability")
    levels = np.array([level for text in found.given if (level := reading_level(text)) is not None])
    if not len(levels):
        return []
    return [
        _mean("flesch_reading_ease", "neither", levels[:, 0], exam.seed, unit="points", syllables="by rule"),
        _mean("flesch_kincaid_grade", "neither", levels[:, 1], exam.seed, unit="school years", syllables="by rule"),
    ]


# ---------------------------------------------------------------- strings in, numbers out


def squad_form(text: str) -> str:
    """In lower case, without ASCII punctuation, without a, an and the, with single spaces: SQuAD's evaluate-v2.0.py."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def squad_f1(answer: str, reference: str) -> float:
    """F1 of the words of both in SQuAD's form, in [0, 1]. Where one has no words, 1 if the other has none either."""
    given, wanted = squad_form(answer).split(), squad_form(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    if not same:
        return 0.0
    precision, recall = same / len(given), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def distinct_ngrams(texts: Sequence[str], n: int) -> Metric:
    """Different n-grams of words over all n-grams, in all texts together (Li et al. 2016), in [0, 1]; 0 without any.

    An n-gram belongs to every text that it stands in, so that texts cannot be told apart here: the interval is 1.96
    standard errors of the jackknife, and no pairs are compared. It falls as texts grow in number.
    """
    counts = [Counter(_ngrams(text, n)) for text in texts]
    holders = Counter(gram for count in counts for gram in count)
    total, kinds = sum(map(Counter.total, counts)), len(holders)
    value = kinds / total if total else 0.0
    own = np.array([sum(holders[gram] == 1 for gram in count) for count in counts], dtype=np.float64)
    left = total - np.array([count.total() for count in counts], dtype=np.float64)
    without = np.where(left > 0, (kinds - own) / np.maximum(left, 1), value)
    error = float(np.sqrt((len(texts) - 1) * np.square(without - without.mean()).mean()))
    low, high = max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error)
    detail = {"examples": len(texts), "ngrams": total, "interval": "jackknife"}
    return Metric(f"distinct_{n}", value, low, high, "higher", unit="share", detail=detail)


def repeated_share(text: str, n: int) -> float:
    """1 - different n-grams of words / all of them, in [0, 1); 0 for a text of fewer words."""
    grams = _ngrams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def reading_level(text: str) -> tuple[float, float] | None:
    """Flesch reading ease (Flesch 1948: 100 easy, 0 hard, unbounded) and Flesch-Kincaid grade (Kincaid et al. 1975:
    school years). None for a text without words, which here are runs of letters and digits."""
    found = _WORD.findall(text)
    if not found:
        return None
    sentences = sum(bool(_WORD.search(part)) for part in _SENTENCE_END.split(text))
    length, weight = len(found) / sentences, sum(map(syllables, found)) / len(found)
    return 206.835 - 1.015 * length - 84.6 * weight, 0.39 * length + 11.8 * weight - 15.59


def syllables(word: str) -> int:
    """Syllables of an English word by rule, at least 1.

    Words of three letters have one. Else a silent ending is cut off (-e and -es but after l or a vowel, -ed) and a
    leading y, and each run of one or two of aeiouy counts, with -ing on its own.
    """
    word = word.lower()
    if len(word) <= 3:
        return 1
    stem = _HIATUS.sub(" ", _SILENT.sub("", word)).removeprefix("y")
    return max(1, len(_VOWELS.findall(stem)))


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return list(zip(*(found[offset:] for offset in range(n)), strict=False))


def _counts(texts: Sequence[str]) -> Floats:
    return np.array([len(words(text)) for text in texts], dtype=np.float64)


def _mean(
    name: str, better: Better, values: Sequence[float] | Floats, seed: int, unit: str, **detail: bool | str
) -> Metric:
    column = np.array(values, dtype=np.float64)
    scores = Scores(np.stack([column, np.ones_like(column)], axis=1))
    return from_scores(name, better, scores, seed, unit=unit, detail={"examples": len(column), **detail})
