"""A speaker that says what it is told to, and exams for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flywheel.metrics.base import Exam, Likelihood, Speaker
from flywheel.record import Record
from flywheel.runtimes.base import Sampling


@dataclass
class Scripted:
    """Answers by the id of a row; a character of any text costs one nat and is one token."""

    answers: dict[str, str] = field(default_factory=dict)
    asked: list[Record] = field(default_factory=list)

    def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        return [prompt[::-1] for prompt in prompts]

    def answer(self, rows: Sequence[Record], sampling: Sampling) -> list[str]:
        assert sampling.temperature == 0
        self.asked += rows
        return [self.answers[row.id] for row in rows]

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Likelihood]:
        assert len(prompts) == len(completions)
        return [Likelihood(-float(len(completion)), len(completion)) for completion in completions]


def pairs(references: Sequence[str]) -> list[Record]:
    return [Record(str(i), prompt=f"Question {i}?", completion=text) for i, text in enumerate(references)]


def exam(rows: Sequence[Record], speaker: Speaker, num_samples: int = 100) -> Exam:
    return Exam(rows, [], num_samples, Sampling(), seed=0, speaker=speaker)


def exam_of(answers: Sequence[str], references: Sequence[str]) -> Exam:
    """An exam in which these answers are given."""
    return exam(pairs(references), Scripted({str(i): text for i, text in enumerate(answers)}))
