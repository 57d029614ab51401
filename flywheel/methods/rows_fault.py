"""Why a row cannot be learned by a method, for `validate` to quarantine it before training: functions of one row.

Reasons: `missing_column` (what the method needs is not there), `empty` (nothing but white space), `no_user_turn`,
`no_answer`, and those of `flywheel.methods.dialogue`. What depends on a tokenizer, such as a row that is too long, is
found when rows are encoded. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flywheel.methods import dialogue
from flywheel.record import Messages, Record, texts

Fault = Callable[[Record], str]
"""The reason as one snake_case word; empty where the row can be learned."""


def fault_of(method: str | None, columns: tuple[str, ...]) -> Fault:
    """The check of a method, for a modality whose rows have at least one of `columns`."""
    learned = _METHODS[method or ""]

    def fault(row: Record) -> str:
        known = any(getattr(row, name) is not None for name in columns)
        return learned(row) if known else "missing_column"

    return fault


def _any(row: Record) -> str:
    """Rows as they are: a document or a picture, or what has an answer."""
    if _whole(row) or row.image is not None or row.audio is not None:
        return _whole(row)
    return "" if row.text is not None and row.completion is None else _answered(row)


def _whole(row: Record) -> str:
    """Every token of every row."""
    media = row.image is not None or row.audio is not None
    return "" if media or any(text.strip() for text in texts(row)) else "empty"


def _answered(row: Record) -> str:
    """A prompt with its completion, a conversation, or a preference, of which the chosen side is the answer."""
    if row.completion is not None:
        if row.prompt is None:
            return "missing_column"
        return "no_answer" if not row.completion.strip() else "" if row.prompt.strip() else "empty"
    if isinstance(row.chosen, str) and row.messages is None:
        return "no_answer" if not row.chosen.strip() else ""
    said = [*(row.messages or ()), *(() if row.chosen is None else _turns(row.chosen))]
    if not said:
        return "no_answer"
    if row.prompt is None and not _speaks(said, "user"):
        return "no_user_turn"
    return "" if _speaks(said, "assistant") else "no_answer"


def _turns(said: str | Messages) -> Messages:
    return [{"role": "assistant", "content": said}] if isinstance(said, str) else said


def _speaks(messages: Messages, role: str) -> bool:
    return any(message["role"] == role and message["content"].strip() for message in messages)


def _asked_or_document(row: Record) -> str:
    """What a teacher can be asked, or a document."""
    if row.text is not None and row.prompt is None and row.messages is None:
        return _whole(row)
    return dialogue.fault(dialogue.question, row)


def _compared(row: Record) -> str:
    """Two sides for a reward model, which needs no question."""
    alone = isinstance(row.chosen, str) and row.prompt is None and row.messages is None
    return _preferred(row.with_fields(prompt="none") if alone else row)


_preferred = partial(dialogue.fault, dialogue.preference)
_METHODS: dict[str, Fault] = {
    "": _any,
    "pretrain": _whole,
    "sft": _answered,
    "dpo": _preferred,
    "orpo": _preferred,
    "reward": _compared,
    "kto": partial(dialogue.fault, dialogue.judged),
    "grpo": partial(dialogue.fault, dialogue.question),
    "distill": _asked_or_document,
}
