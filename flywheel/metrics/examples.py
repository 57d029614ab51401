"""The held-out rows that metrics ask about, their right answers, and what a model answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flywheel.errors import RecipeError
from flywheel.metrics.asking import speaker_of
from flywheel.metrics.base import Exam
from flywheel.record import Messages, Record


@dataclass(frozen=True)
class Answered:
    """Rows, what the model answered to each, and the right answers."""

    rows: list[Record]
    given: list[str]
    references: list[str]


def greedy(exam: Exam, measure: str) -> Answered:
    """Greedy answers to at most `exam.num_samples` of the held-out rows that have an answer, evenly spread.

    Raises RecipeError where no row has one; `measure` is what asks.
    """
    rows = [row for row in map(answered, exam.heldout) if has_answer(row)]
    if not rows:
        raise lacking(measure, "no row with an answer", "rows with `prompt` and `completion`, `messages` or `chosen`")
    chosen = spread(rows, exam.num_samples)
    return Answered(chosen, ask(exam, chosen), [reference(row) for row in chosen])


def ask(exam: Exam, rows: Sequence[Record]) -> list[str]:
    """Greedy answers, asked alike by every metric, so that what one has asked is remembered for the others."""
    return speaker_of(exam).answer(rows, exam.greedy)


def lacking(measure: str, found: str, expected: str) -> RecipeError:
    """The error for held-out rows that a metric can do nothing with."""
    return RecipeError(
        f"evaluate.metrics: {measure}",
        found=f"{found} among the held-out ones",
        expected=expected,
        remedy=f"leave `{measure}` out, or hold such rows out",
    )


def spread(rows: Sequence[Record], count: int) -> list[Record]:
    """At most `count` rows, evenly spaced."""
    step = max(1.0, len(rows) / max(count, 1))
    return [rows[int(i * step)] for i in range(min(count, len(rows)))]


def answered(row: Record) -> Record:
    """The row with its chosen side as its answer, where it has one and no other answer."""
    if row.chosen is None or row.completion is not None or row.text is not None:
        return row
    if isinstance(row.chosen, str) and row.messages is None:
        return row.with_fields(text=row.chosen) if row.prompt is None else row.with_fields(completion=row.chosen)
    before = row.messages or ([{"role": "user", "content": row.prompt}] if row.prompt is not None else [])
    last = [{"role": "assistant", "content": row.chosen}] if isinstance(row.chosen, str) else row.chosen
    return row.with_fields(messages=[*before, *last], prompt=None)


def has_answer(row: Record) -> bool:
    """Whether a row is a pair, or a conversation in which the assistant answers."""
    return row.completion is not None or (row.text is None and last_answer(row.messages or ()) is not None)


def reference(row: Record) -> str:
    """The answer of a pair, or the last one of a conversation."""
    if row.completion is not None:
        return row.completion
    found = last_answer(row.messages or ())
    return found[1] if found else ""


def last_answer(messages: Messages) -> tuple[Messages, str] | None:
    """A conversation up to its last answer, and that answer; None where there is none."""
    kept = until_answer(messages)
    return (kept[:-1], kept[-1]["content"]) if kept else None


def until_answer(messages: Messages) -> Messages:
    """A conversation up to and with its last answer."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[: last + 1]
