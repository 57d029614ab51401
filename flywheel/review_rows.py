"""From questions and answers to a batch for review, and from its verdicts to preference rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any

from flywheel import artifact
from flywheel.errors import SourceError
from flywheel.labelling import majority
from flywheel.methods import dialogue
from flywheel.record import Record, read_rows
from flywheel.review import Batch, Item, Key, Mode, Opinions, Prompt, key_file, verdict_files


@dataclass(frozen=True)
class Question:
    """What is asked, and the answer that the same file gives, where it gives one."""

    id: str
    prompt: Prompt
    answer: str | None = None


def questions(path: Path) -> dict[str, Question]:
    """The questions of a .jsonl file or of rows as Parquet, by a name that their words alone decide.

    Rows have `prompt`, or `messages`, and for an answer `completion` or a last turn. Raises SourceError.
    """
    found: dict[str, Question] = {}
    for row in _rows(path):
        try:
            asked = dialogue.question(row)
        except dialogue.Unusable:
            continue
        prompt = asked.prompt if isinstance(asked.prompt, str) else [dict(turn) for turn in asked.prompt]
        name = hashlib.sha256(json.dumps(prompt, sort_keys=True).encode()).hexdigest()[:16]
        answer = dialogue.plain_text(asked.answers[0]) if asked.answers else None
        found.setdefault(name, Question(name, prompt, answer))
    if not found:
        raise SourceError(f"questions in {path}", found="none", expected="rows with `prompt` or `messages`")
    return found


def _rows(path: Path) -> Iterator[Record]:
    try:
        if path.suffix != ".jsonl":
            yield from read_rows(path)
            return
        with path.open(encoding="utf-8-sig") as file:
            for line in filter(str.strip, file):
                row = json.loads(line)
                yield Record("", **{name: row.get(name) for name in ("prompt", "completion", "messages")})
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(
            f"questions in {path}",
            found=f"{type(error).__name__}: {error}",
            expected="a .jsonl file of rows with `prompt` or `messages`, or rows as Parquet",
            remedy="correct the file, or name another",
        ) from error


def choose(found: Mapping[str, Question], count: int, seed: int) -> list[Question]:
    """At most `count` questions in an order that the seed decides."""
    return [found[name] for name in nsmallest(count, found, key=lambda name: _draw(name, seed))]


def make(
    out: Path,
    asked: Sequence[Question],
    sides: Sequence[tuple[str, Mapping[str, str]]],
    scales: Sequence[str],
    seed: int,
) -> Key:
    """Write a batch and its key. `sides` are one or two names with answers by question.

    Which side stands first is drawn for each item. Raises SourceError where there is nothing to review, or where the
    batch that is there has verdicts.
    """
    if verdict_files(out):
        raise SourceError(
            f"batch {out}",
            found="verdicts on the batch of that name",
            expected="a new name, or no verdicts",
            remedy="choose another --output",
        )
    answered = [q for q in asked if all(q.id in answers for _, answers in sides)]
    told = [q for q in answered if len(sides) == 1 or _differ(*(answers[q.id] for _, answers in sides))]
    if not told:
        raise SourceError(
            f"batch {out}",
            found=f"{len(asked)} questions, {len(asked) - len(answered)} without an answer, the others answered alike",
            expected="questions that each side has answered, and not alike",
        )
    first = {q.id: _draw(f"side {q.id}", seed)[0] % 2 if len(sides) == 2 else 0 for q in told}
    items = tuple(
        Item(
            id=q.id,
            prompt=q.prompt,
            answers=tuple(sides[(first[q.id] + i) % len(sides)][1][q.id] for i in range(len(sides))),
        )
        for q in told
    )
    mode: Mode = "compare" if len(sides) == 2 else "rate"
    batch = Batch(mode=mode, scales=tuple(scales) if mode == "rate" else (), items=items)
    text = batch.model_dump_json(indent=1).encode()
    key = Key(
        batch=hashlib.sha256(text).hexdigest(),
        sides=tuple(name for name, _ in sides),
        first=first,
        identical=len(answered) - len(told),
        missing=len(asked) - len(answered),
    )
    artifact.write_whole(key_file(out), key.model_dump_json(indent=1).encode())
    artifact.write_whole(out, text)
    return key


def _differ(one: str, other: str) -> bool:
    return one.strip() != other.strip()


def _draw(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def preferences(found: Opinions) -> list[dict[str, Any]]:
    """A row for each item on which most raters prefer one side: `prompt` (or `messages`), `chosen`, `rejected`.

    Items without a majority, and rows that preference methods could not learn, give none. Raises SourceError where
    answers were rated.
    """
    if found.opened.batch.mode == "rate":
        raise SourceError(
            f"batch {found.opened.path}", found="single answers that were rated", expected="answers that were compared"
        )
    choices, rows = found.choices(), []
    for item in found.opened.batch.items:
        winner = majority(choices.get(item.id, {}).values())
        if winner not in ("a", "b"):
            continue
        best = found.key.first[item.id] ^ ("ab".index(winner))
        asked: dict[str, Any] = {"prompt": item.prompt} if isinstance(item.prompt, str) else {"messages": item.prompt}
        row = {**asked, "chosen": item.answers[best], "rejected": item.answers[1 - best]}
        if not dialogue.fault(dialogue.preference, Record(item.id, **row)):
            rows.append(row)
    return rows
