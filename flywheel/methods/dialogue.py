"""Questions and answers to them: what a row of preferences, of judged answers or of prompts says, as token ids.

The ids are those that the room asks with when a model is evaluated and served. TRL is given ids alone, so that no other
format and no other truncation gets between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flywheel.errors import TrainingError
from flywheel.record import LeftOut, Messages, Record, drop

if TYPE_CHECKING:
    from flywheel.methods.base import Stage
    from flywheel.modalities import chat
    from flywheel.modalities.base import Model
    from flywheel.modalities.chat import Refused
    from flywheel.modalities.token_rows import Ids

Said = str | Messages
"""A text, or the turns of a conversation."""


@dataclass(frozen=True)
class Asked:
    """A question and answers to it, all of them texts or all of them conversations."""

    prompt: Said
    answers: tuple[Said, ...] = ()
    labels: tuple[bool, ...] = ()
    """Whether each answer is a good one, where that is known."""


@dataclass(frozen=True)
class Tokens:
    """The same as token ids; the prompt reaches up to where its answer starts, and an answer to its end token."""

    prompt: list[int]
    answers: list[list[int]]

    def __len__(self) -> int:
        """The length of the longest sequence."""
        return len(self.prompt) + max(map(len, self.answers), default=0)


class Unusable(Exception):
    """A row that says no question with its answers; the message is the reason in snake_case."""


Read = Callable[[Record], Asked]


def fault(read: Read, row: Record) -> str:
    """Why a row cannot be read, as one snake_case word; empty where it can."""
    try:
        read(row)
    except Unusable as reason:
        return str(reason)
    return ""


def preference(row: Record) -> Asked:
    """Of a row with `chosen` and `rejected`: texts that answer `prompt` or `messages`, or whole conversations, whose
    question is what they share."""
    if row.chosen is None or row.rejected is None:
        raise Unusable("missing_column")
    if _blank(row.chosen) or _blank(row.rejected):
        raise Unusable("empty")
    if _plain(row.chosen) == _plain(row.rejected):
        raise Unusable("equal_sides")
    if isinstance(row.chosen, str) and isinstance(row.rejected, str) and row.messages is None:
        if row.prompt is None:
            raise Unusable("missing_column")
        return _checked(Asked(row.prompt, (row.chosen, row.rejected), (True, False)))
    chosen, rejected = _turns(row.chosen), _turns(row.rejected)
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    asked = chosen[:shared] or row.messages or ([] if row.prompt is None else [{"role": "user", "content": row.prompt}])
    return _checked(Asked(asked, (chosen[shared:], rejected[shared:]), (True, False)))


def judged(row: Record) -> Asked:
    """Of a row with an answer and a `label` of true or false; of a preference both answers, judged by what they are."""
    if row.chosen is not None or row.rejected is not None:
        return preference(row)
    asked = question(row)
    if not asked.answers:
        raise Unusable("no_answer" if row.messages is not None else "missing_column")
    if row.label is None:
        raise Unusable("missing_column")
    if (label := row.label.strip().casefold()) not in ("true", "false"):
        raise Unusable("label_not_boolean")
    return Asked(asked.prompt, asked.answers, (label == "true",))


def question(row: Record) -> Asked:
    """Of a row with `prompt` or `messages`, with its answer where it has one."""
    if row.messages is not None:
        turns = list(row.messages)
        answered = bool(turns) and turns[-1].get("role") == "assistant"
        asked, answers = (turns[:-1], (turns[-1:],)) if answered else (turns, ())
        return _checked(Asked(asked, answers))
    if row.prompt is None:
        raise Unusable("missing_column")
    return _checked(Asked(row.prompt, () if row.completion is None else (row.completion,)))


def _checked(asked: Asked) -> Asked:
    if not isinstance(asked.prompt, str) and not any(turn.get("role") == "user" for turn in asked.prompt):
        raise Unusable("no_user_turn")
    for answer in asked.answers:
        if not answer or (not isinstance(answer, str) and answer[0].get("role") != "assistant"):
            raise Unusable("no_answer")
    if _blank(asked.prompt) or any(map(_blank, asked.answers)):
        raise Unusable("empty")
    return asked


def _turns(said: Said) -> list[Any]:
    return [{"role": "assistant", "content": said}] if isinstance(said, str) else list(said)


def _plain(said: Said) -> Any:
    return said.strip() if isinstance(said, str) else [(t.get("role"), (t.get("content") or "").strip()) for t in said]


def _blank(said: Said) -> bool:
    return not plain_text(said).strip()


def plain_text(said: Said) -> str:
    """What was said, without the roles of a conversation."""
    return said if isinstance(said, str) else "\n\n".join(turn.get("content") or "" for turn in said)


# ---------------------------------------------------------------- token ids


def tokens(model: Model, asked: Sequence[Asked]) -> list[Tokens | Refused]:
    """Questions and answers as token ids, in the room's own format: that of its pairs, or the chat template."""
    plain = _pairs(model, [one for one in asked if isinstance(one.prompt, str)])
    talks = _conversations(model, [one for one in asked if not isinstance(one.prompt, str)])
    return [next(plain if isinstance(one.prompt, str) else talks) for one in asked]


def _pairs(model: Model, asked: Sequence[Asked]) -> Iterator[Tokens]:
    from flywheel.modalities import decoder_model

    prompts = decoder_model.questions(model, [cast(str, one.prompt) for one in asked])
    answers = iter(decoder_model.answers(model, [cast(str, answer) for one in asked for answer in one.answers]))
    for one, prompt in zip(asked, prompts, strict=True):
        yield Tokens(prompt.tolist(), [next(answers).tolist() for _ in one.answers])


def _conversations(model: Model, asked: Sequence[Asked]) -> Iterator[Tokens | Refused]:
    from flywheel.modalities import chat

    if not asked:
        return
    whole = [Record("", messages=[*_turns(one.prompt), *_turns(answer)]) for one in asked for answer in one.answers]
    said = iter(chat.sequences(model, whole) if whole else [])
    drafts = [[next(said) for _ in one.answers] for one in asked]
    refused = [next((found for found in draft if isinstance(found, chat.Refused)), None) for draft in drafts]
    usable = [_turns(one.prompt) for one, fault in zip(asked, refused, strict=True) if fault is None]
    prompts = iter(chat.questions(model, usable))
    for draft, fault in zip(drafts, refused, strict=True):
        # Of an answer's sequences the last one shows its end.
        yield fault or _cut(next(prompts), [found[-1] for found in draft if not isinstance(found, chat.Refused)])


def _cut(prompt: Ids, answers: Sequence[chat.Said]) -> Tokens:
    """A question up to where its answers begin, and these up to the token that ends them."""
    whole = [said.ids[: int(np.flatnonzero(said.learned)[-1]) + 1].tolist() for said in answers]
    start = min((_shared(prompt.tolist(), ids) for ids in whole), default=len(prompt))
    return Tokens(prompt[:start].tolist(), [ids[start:] for ids in whole])


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@dataclass(frozen=True)
class Kept:
    """The rows of a stage that can be learned, and those that cannot."""

    rows: list[Record]
    asked: list[Asked]
    tokens: list[Tokens]
    left_out: list[LeftOut]


def fitting(stage: Stage, rows: Sequence[Record], read: Read, room: int) -> Kept:
    """Rows whose longest sequence has at most `room` tokens; the others are left out as `too_long`, and those that
    cannot be read with their reason. Raises TrainingError where none remains."""
    usable: list[tuple[Record, Asked]] = []
    left_out: list[LeftOut] = []
    for row in rows:
        try:
            usable.append((row, read(row)))
        except Unusable as reason:
            left_out.append(drop(row, str(reason)))
    kept: list[tuple[Record, Asked, Tokens]] = []
    for (row, asked), found in zip(usable, tokens(stage.model, [asked for _, asked in usable]), strict=True):
        if not isinstance(found, Tokens):
            left_out.append(drop(row, found.reason, found.detail))
        elif len(found) <= room:
            kept.append((row, asked, found))
        else:
            left_out.append(drop(row, "too_long", f"{len(found)} tokens, {room} are allowed"))
    if not kept:
        reasons = sorted({row.reason for row in left_out})
        raise TrainingError(
            f"the rows of method {getattr(stage.config, 'method', None)}",
            found=f"{len(left_out)} rows, all of them left out: {', '.join(reasons)}",
            expected=f"rows that the method can learn, of at most {room} tokens",
            remedy="raise max_length, or read docs/train.md on the columns that the method needs",
        )
    rows_, asked_, tokens_ = zip(*kept, strict=True)
    return Kept(list(rows_), list(asked_), list(tokens_), left_out)


def length(stage: Stage) -> int:
    """The most tokens of a sequence: `max_length`, or the context of the model where that is less.

    Raises TrainingError where the model is no decoder with a tokenizer, or its head carries an adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    module: Any = stage.model.module
    decoder = isinstance(module, PreTrainedModel) and module.can_generate() and not module.config.is_encoder_decoder
    if not decoder or not isinstance(stage.model.processor, PreTrainedTokenizerBase):
        raise TrainingError(
            f"method {getattr(stage.config, 'method', None)}",
            found=f"a {type(module).__name__}",
            expected="a decoder-only language model: the modality text_causal or code",
            remedy="use another method, or another modality",
        )
    if isinstance(module.get_output_embeddings(), BaseTunerLayer):
        raise TrainingError(
            "peft.target_modules",
            found="the output head of the model",
            expected="other layers: this method reads the head's weights directly, and would not train its adapter",
            remedy="write all-linear, or name other layers",
        )
    context = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    return min(stage.config.max_length, context or stage.config.max_length)
