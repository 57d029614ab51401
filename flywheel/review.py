"""Human review: blind batches of answers, and what people say of them.

Beside `batch.json` lie `batch.key.json`, which says whose answers they are and stays closed until the report, and
`batch.verdicts.jsonl`, to which every verdict is appended. Verdicts from elsewhere count too where a file of them lies
there as `batch.verdicts-NAME.jsonl`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from flywheel import lines
from flywheel.errors import SourceError

Mode = Literal["compare", "rate"]
Choice = Literal["A", "B", "tie"]
Prompt = str | list[dict[str, str]]
"""A text, or the turns of a conversation."""
POINTS = 5
"""A Likert scale goes from 1 to this."""


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Item(_Plain):
    """A question with one answer, or with two whose order says nothing."""

    id: str
    prompt: Prompt
    answers: tuple[str, ...]


class Batch(_Plain):
    """What is reviewed. To `compare` is to choose one of two answers; to `rate` is to give one answer 1 to 5 points."""

    mode: Mode
    scales: tuple[str, ...] = ()
    """What an answer is rated for."""
    items: tuple[Item, ...]


class Key(_Plain):
    """Whose answers they are."""

    batch: str
    """sha256 of the batch."""
    sides: tuple[str, ...]
    """Where the answers came from: one place, or two."""
    first: dict[str, int] = {}
    """Item → which of the sides is shown as A."""
    identical: int = 0
    """Questions left out because both sides answered alike."""
    missing: int = 0
    """Questions left out because a side has no answer."""


class Verdict(_Plain):
    """What a rater says of an item; the last one counts. One without choice and ratings is a comment alone."""

    batch: str
    item: str
    rater: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
    choice: Choice | None = None
    ratings: dict[str, Annotated[int, Field(ge=1, le=POINTS)]] = {}
    comment: str = Field(default="", max_length=10_000)

    @property
    def said(self) -> bool:
        return self.choice is not None or bool(self.ratings)


@dataclass(frozen=True)
class Opened:
    """A batch and the sha256 of its file."""

    batch: Batch
    digest: str
    path: Path

    @property
    def file(self) -> Path:
        """Where its verdicts go."""
        return self.path.with_name(f"{self.path.stem}.verdicts.jsonl")

    def fault(self, verdict: Verdict) -> str:
        """Why a verdict is not one on this batch; empty where it is."""
        if verdict.batch != self.digest:
            return "the verdict is on another batch; load the page again"
        if verdict.item not in {item.id for item in self.batch.items}:
            return f"no item {verdict.item!r}"
        if verdict.choice is not None and self.batch.mode == "rate":
            return "these answers are rated, not compared"
        unknown = sorted(set(verdict.ratings) - set(self.batch.scales))
        return f"no scale {unknown[0]!r}" if unknown else ""


def key_file(batch: Path) -> Path:
    """Where the key of a batch lies."""
    return batch.with_name(f"{batch.stem}.key.json")


def open_batch(path: Path) -> Opened:
    """Raises SourceError for a file that is no batch."""
    try:
        text = path.read_bytes()
        return Opened(Batch.model_validate_json(text), hashlib.sha256(text).hexdigest(), path)
    except (OSError, ValidationError) as error:
        raise _unreadable(f"batch {path}", error) from error


def _unreadable(thing: str, error: Exception) -> SourceError:
    return SourceError(
        thing,
        found=str(error).splitlines()[0],
        expected="what `flywheel review make` wrote",
        remedy="name the batch, with its key beside it, or make it again",
    )


# ---------------------------------------------------------------- verdicts


def save(opened: Opened, verdict: Verdict, received: float) -> None:
    """Append a verdict; it is on the disk when this returns. `received` is in seconds since 1970, UTC."""
    lines.append(opened.file, {**verdict.model_dump(), "received": received})


def verdicts(opened: Opened) -> list[Verdict]:
    """The last verdict of each rater on each item, by item and rater; what is no verdict on this batch is left out."""
    entries = [entry for file in verdict_files(opened.path) for entry in lines.read(file) if isinstance(entry, dict)]
    last: dict[tuple[str, str], Verdict] = {}
    for entry in sorted(entries, key=_received):
        try:
            verdict = Verdict.model_validate({k: v for k, v in entry.items() if k != "received"})
        except ValidationError:
            continue
        if not opened.fault(verdict):
            last[verdict.item, verdict.rater] = verdict
    return [last[name] for name in sorted(last)]


def _received(entry: Mapping[str, Any]) -> float:
    found = entry.get("received")
    return found if isinstance(found, int | float) and found == found else 0.0  # NaN has no place in an order


def verdict_files(batch: Path) -> list[Path]:
    """Where verdicts on a batch lie."""
    names = (f"{batch.stem}.verdicts.jsonl", f"{batch.stem}.verdicts-")
    found = batch.parent.glob("*.jsonl") if batch.parent.is_dir() else ()
    return sorted(file for file in found if file.name.startswith(names))


@dataclass(frozen=True)
class Opinions:
    """A batch with its key and what was said of it."""

    opened: Opened
    key: Key
    verdicts: list[Verdict]

    def winner(self, verdict: Verdict) -> str | None:
        """`a` or `b` for the sides of the key, `tie`, or None where no choice was made."""
        if verdict.choice is None or verdict.choice == "tie":
            return verdict.choice
        return "ab"[self.key.first[verdict.item] ^ (verdict.choice == "B")]

    def choices(self) -> dict[str, dict[str, str]]:
        """Item → rater → winner."""
        found: dict[str, dict[str, str]] = {}
        for verdict in self.verdicts:
            if (winner := self.winner(verdict)) is not None:
                found.setdefault(verdict.item, {})[verdict.rater] = winner
        return found

    def ratings(self, scale: str) -> dict[str, dict[str, int]]:
        """Item → rater → points."""
        found: dict[str, dict[str, int]] = {}
        for verdict in self.verdicts:
            if scale in verdict.ratings:
                found.setdefault(verdict.item, {})[verdict.rater] = verdict.ratings[scale]
        return found


def opinions(path: Path) -> Opinions:
    """Raises SourceError where the key is missing or another batch's, or nothing was said yet."""
    opened = open_batch(path)
    try:
        key = Key.model_validate_json(key_file(path).read_bytes())
    except (OSError, ValidationError) as error:
        raise _unreadable(f"key of the batch {path}", error) from error
    if key.batch != opened.digest:
        raise _unreadable(f"key of the batch {path}", ValueError("the key of another batch"))
    found = verdicts(opened)
    if not any(verdict.said for verdict in found):
        raise SourceError(
            f"verdicts on {path}",
            found="none",
            expected=f"some in {opened.file.name}",
            remedy=f"run `flywheel review serve {path}` and review",
        )
    return Opinions(opened, key, found)


def counted(found: Opinions) -> dict[str, int]:
    """Rater → items that they judged."""
    return dict(sorted(Counter(v.rater for v in found.verdicts if v.said).items()))
