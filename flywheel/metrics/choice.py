"""Questions with given choices, answered by log-likelihood as lm-evaluation-harness does (Gao et al. 2021)."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from flywheel.arguments import ExistingFile
from flywheel.errors import SourceError
from flywheel.metrics.asking import speaker_of
from flywheel.metrics.base import Exam
from flywheel.metrics.labels import calibration_error
from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.scores import Floats, Scores

Prefix = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, at least two choices, and the place of the right one."""

    query: str
    choices: tuple[str, ...]
    gold: int


def multiple_choice(
    exam: Exam, *, questions: ExistingFile, task: Prefix | None = None, target_delimiter: str = " "
) -> list[Metric]:
    """`acc`, `acc_norm`, `acc_bytes` and `ece` on a JSONL file of questions, behind `task_` where there is a `task`.

    A line has `query` or `question`, which the model reads as it stands, `choices`, and as `gold` or `answer` the place
    of the right one from 0, its text, or its letter. Each choice is scored after the query and `target_delimiter`.
    """
    asked = read_questions(Path(questions).expanduser())
    prompts = [question.query for question in asked for _ in question.choices]
    completions = [target_delimiter + choice for question in asked for choice in question.choices]
    found = iter(speaker_of(exam).log_likelihood(prompts, completions))
    nats = [np.array([next(found).nats for _ in question.choices]) for question in asked]
    return choice_metrics(asked, nats, exam.seed, f"{task}_" if task else "")


def choice_metrics(questions: Sequence[Question], nats: Sequence[Floats], seed: int, prefix: str = "") -> list[Metric]:
    """Metrics of the log-likelihoods (choices,) of each question.

    `acc` takes the likeliest choice, `acc_norm` the likeliest by character and `acc_bytes` by UTF-8 byte, all of equal
    ones the first: the harness's names. `ece` is the calibration of the softmax over the choices.
    """
    gold = np.array([question.gold for question in questions])
    lengths = {
        "acc": [np.ones(len(question.choices)) for question in questions],
        "acc_norm": [np.array([len(choice) for choice in question.choices]) for question in questions],
        "acc_bytes": [np.array([len(choice.encode()) for choice in question.choices]) for question in questions],
    }
    metrics = []
    for name, sizes in lengths.items():
        picked = np.array([np.argmax(scores / size) for scores, size in zip(nats, sizes, strict=True)])
        parts = np.stack([picked == gold, np.ones(len(gold))], axis=1).astype(np.float64)
        detail = {"examples": len(gold), "chance": float(np.mean([1 / len(q.choices) for q in questions]))}
        metrics.append(from_scores(prefix + name, "higher", Scores(parts), seed, unit="share", detail=detail))
    likeliest = np.array([np.argmax(scores) for scores in nats])
    confidence = np.array([1 / np.exp(scores - scores.max()).sum() for scores in nats])
    return [*metrics, calibration_error(f"{prefix}ece", confidence, likeliest == gold, seed)]


def read_questions(path: Path) -> list[Question]:
    """The questions of a JSONL file. Raises SourceError naming the line that cannot be used."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise _unusable(str(path), str(error)) from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_question(json.loads(line)))
            except (ValueError, TypeError, RecursionError) as error:
                raise _unusable(f"{path}:{number}", str(error)) from error
    if not found:
        raise _unusable(str(path), "no questions")
    return found


def _question(row: Any) -> Question:
    """Raises ValueError or TypeError for what is no question."""
    if not isinstance(row, dict):
        raise TypeError("a line that is no object")
    query, choices = row.get("query", row.get("question")), row.get("choices")
    if not isinstance(query, str):
        raise TypeError("no text under query or question")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise TypeError("not two or more texts under choices")
    return Question(query, tuple(choices), _place(row.get("gold", row.get("answer")), choices))


def _place(gold: object, choices: Sequence[str]) -> int:
    """Where the right choice is: by place, by its text, or by its letter."""
    if isinstance(gold, str):
        if gold in choices:
            return choices.index(gold)
        gold = string.ascii_uppercase.find(gold) if len(gold) == 1 else -1
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ValueError("gold or answer is no choice")
    return gold


def _unusable(thing: str, found: str) -> SourceError:
    return SourceError(
        f"questions in {thing}",
        found=found,
        expected='lines like {"query": "1 + 1 =", "choices": ["1", "2"], "gold": 1}',
        remedy="correct the file that `multiple_choice` names",
    )
