"""Which rows a metric asks about, how they open, and what the model says to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from heapq import nsmallest

from flywheel.errors import RecipeError
from flywheel.metrics.base import Exam, Speaker
from flywheel.record import Record
from flywheel.runtimes.base import Sampling

OPENING = 200
"""Most characters of a text that the model is given to go on from."""


def speaker_of(exam: Exam) -> Speaker:
    """The language model of an exam; the table gives one to every metric that needs it."""
    assert exam.speaker is not None
    return exam.speaker


def chosen(rows: Iterable[Record], count: int, seed: int) -> list[Record]:
    """At most `count` rows, chosen by the hash of their ids: more rows, or another order, change few of them."""
    return nsmallest(count, rows, key=lambda row: hashlib.sha256(f"{seed}\0{row.id}".encode()).digest())


def is_document(row: Record) -> bool:
    """Whether a row is one text, to which nothing is asked."""
    return bool(row.text) and row.completion is None


def can_be_asked(row: Record) -> bool:
    """Whether a row opens a text, or asks something."""
    return is_document(row) or row.prompt is not None or bool(row.messages)


def opening(text: str) -> str:
    """The beginning of a text up to the end of a word: half of it, and OPENING characters at most."""
    end = min(OPENING, len(text) // 2)
    space = text.rfind(" ", 1, end + 1)
    return text[: space if space > 0 else end]


def drawn(speaker: Speaker, rows: Sequence[Record], sampling: Sampling) -> list[str]:
    """How the opening of each document goes on, and the answer to each other row."""
    texts = [row for row in rows if is_document(row)]
    others = [row for row in rows if not is_document(row)]
    said = iter(speaker.complete([opening(row.text or "") for row in texts], sampling) if texts else ())
    answers = iter(speaker.answer(others, sampling) if others else ())
    return [next(said if is_document(row) else answers) for row in rows]


def asked(row: Record) -> str:
    """What the model is given of a row, as one text."""
    if is_document(row):
        return opening(row.text or "")
    if row.messages:
        turns = [m["content"] for m in row.messages]
        return "\n".join(turns[:-1] if row.messages[-1]["role"] == "assistant" else turns)
    return row.prompt or ""


def require(examples: Sequence[object], metric: str, expected: str) -> None:
    """Raise RecipeError where a metric has no examples."""
    if not examples:
        raise RecipeError(
            f"evaluate.metrics: {metric}",
            found="none",
            expected=expected,
            remedy=f"give such rows, or leave {metric} out",
        )
