"""Rows of the decoder-only rooms by what is learned of them: documents, pairs, and conversations.

Of a preference the chosen side counts as the answer, so that the rows of a preference method can also be learned as
they are and be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flywheel.metrics.examples import answered, last_answer
from flywheel.modalities import chat, decoder_model
from flywheel.modalities.base import Model
from flywheel.modalities.token_rows import IGNORED, Ids, Piece, pair, windows
from flywheel.record import LeftOut, Record, drop


class Kinds(NamedTuple):
    """Rows by kind. Rows that are none of these (a prompt alone) are in none."""

    documents: list[Record]
    pairs: list[Record]
    conversations: list[Record]


def kinds(rows: Sequence[Record]) -> Kinds:
    """Rows by kind, each kind in its order; pairs and conversations have an answer."""
    full = [answered(row) for row in rows]
    return Kinds(
        [r for r in full if r.text is not None and r.completion is None],
        [r for r in full if r.completion is not None],
        [r for r in full if r.text is None and r.completion is None and last_answer(r.messages or ())],
    )


def questions(model: Model, rows: Sequence[Record]) -> list[Ids]:
    """Token ids of each row up to where its answer starts, which for a conversation is the last one."""
    talks = [r.messages for r in rows if r.messages is not None]
    asked = iter(chat.questions(model, [(last_answer(t) or (t, ""))[0] for t in talks]) if talks else ())
    plain = iter(decoder_model.questions(model, [r.prompt or "" for r in rows if r.messages is None]))
    return [next(plain if r.messages is None else asked) for r in rows]


def pieces(model: Model, rows: Sequence[Record], max_length: int, whole: bool) -> tuple[list[Piece], list[LeftOut]]:
    """Sequences of at most `max_length` tokens with their labels, and the rows that gave none.

    `whole` learns every token of every row. Else documents are learned whole, and of the others the answers: a prompt
    that is too long is shortened, and an answer that leaves no room for a prompt is left out.
    """
    found = kinds(rows)
    learned = list(windows(decoder_model.documents(model, [r.text or "" for r in found.documents]), max_length))
    asked = decoder_model.questions(model, [r.prompt or "" for r in found.pairs])
    answers = decoder_model.answers(model, [r.completion or "" for r in found.pairs])
    if whole:
        learned += windows(map(np.concatenate, zip(asked, answers, strict=True)), max_length)
        talks, left_out = _whole(model, found.conversations)
        return learned + list(windows(talks, max_length)), left_out
    left_out = []
    for row, question, answer in zip(found.pairs, asked, answers, strict=True):
        piece = pair(question, answer, max_length)
        if piece is None:
            left_out.append(_too_long(row, len(answer), max_length))
        else:
            learned.append(piece)
    told, refused = _conversations(model, found.conversations, max_length)
    return learned + told, left_out + refused


def _whole(model: Model, rows: Sequence[Record]) -> tuple[list[Ids], list[LeftOut]]:
    found = list(zip(rows, chat.whole(model, rows) if rows else (), strict=True))
    left_out: list[LeftOut] = [drop(row, *said) for row, said in found if isinstance(said, chat.Refused)]
    return [said[0].ids for _, said in found if not isinstance(said, chat.Refused)], left_out


def _conversations(model: Model, rows: Sequence[Record], max_length: int) -> tuple[list[Piece], list[LeftOut]]:
    learned, left_out, ends = list[Piece](), list[LeftOut](), set[int]()
    for row, said in zip(rows, chat.sequences(model, rows) if rows else (), strict=True):
        if isinstance(said, chat.Refused):
            left_out.append(drop(row, *said))
            continue
        ends |= {int(ids[end - 1]) for ids, mask in said for _, end in runs(mask)}
        fitting = [piece for one in said for piece in _fit(one, max_length)]
        learned += fitting
        if not fitting:
            shortest = min((end - start for one in said for start, end in runs(one.learned)), default=0)
            left_out.append(_too_long(row, shortest, max_length))
    decoder_model.end_with(model, ends)
    return learned, left_out


def _fit(said: chat.Said, max_length: int) -> Iterator[Piece]:
    """A conversation as it is where it fits, else each of its answers after what stood before it."""
    if len(said.ids) <= max_length:
        yield said.ids, np.where(said.learned, said.ids, IGNORED)
        return
    for start, end in runs(said.learned):
        piece = pair(said.ids[:start], said.ids[start:end], max_length)
        if piece is not None:
            yield piece


def runs(mask: chat.Mask) -> list[tuple[int, int]]:
    """Start and end of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _too_long(row: Record, size: int, max_length: int) -> LeftOut:
    return drop(row, "too_long", f"an answer of {size} tokens, {max_length - 2} fit")
