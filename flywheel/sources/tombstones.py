"""Tombstones: rows that were asked to be forgotten, and that no later run may read.

A row is known by its id, by its texts that say the subject, and, where none does (a picture in a folder of that name),
by its whole content. So it stays out when it moves to another line or file, when other columns of it are read, and when
capitals, white space or the form of its Unicode change. The file holds hashes, and nothing of the rows themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.record import Dropped, LeftOut, Outcome, Record, content, texts

FILE, LOCK = "tombstones.json", ".tombstones.lock"
"""Where they lie in the store."""
REASON = "forgotten"
IGNORED = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
"""Characters that nobody sees, for `str.translate`: soft hyphens, joiners and zero-width spaces."""


@dataclass(frozen=True)
class Tombstones:
    """Hashes that stand for forgotten rows."""

    ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    """Of texts, labels, and the details of rows that were left out."""
    contents: frozenset[str] = frozenset()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Tombstones:
        """Tombstones as `as_json` wrote them."""
        return cls(*(frozenset(found[name]) for name in ("ids", "texts", "contents")))

    def as_json(self) -> dict[str, list[str]]:
        return {"ids": sorted(self.ids), "texts": sorted(self.texts), "contents": sorted(self.contents)}

    def __or__(self, other: Tombstones) -> Tombstones:
        return Tombstones(self.ids | other.ids, self.texts | other.texts, self.contents | other.contents)

    @cached_property
    def digest(self) -> str:
        """Equal for equal tombstones; empty for none."""
        return hashlib.sha256(json.dumps(self.as_json()).encode()).hexdigest()[:16] if self.ids else ""

    def drop(self, row: Outcome) -> Outcome:
        """The row, or `forgotten` in its place, without a word of where it stood or what was wrong with it."""
        if not self.hold(row):
            return row
        source = row.source if isinstance(row, LeftOut) else str(row.origin.get("source", ""))
        return Dropped(row.id, REASON, source=source)

    def hold(self, row: Outcome) -> bool:
        """Whether a row is to be forgotten."""
        if not self.ids:
            return False
        if row.id in self.ids:
            return True
        if isinstance(row, LeftOut):
            return bool(row.detail) and text_mark(row.detail) in self.texts
        return self._hold_text(row) or (bool(self.contents) and content_mark(row) in self.contents)

    def _hold_text(self, row: Record) -> bool:
        said = [*texts(row), row.label] if self.texts else []
        return any(text_mark(text) in self.texts for text in said if text)


NONE = Tombstones()


def folded(text: str) -> str:
    """A text without what makes no difference to a reader: case, the form of Unicode, white space, invisible marks."""
    if not text.isascii():
        text = unicodedata.normalize("NFD", text.translate(IGNORED)).casefold()
        return " ".join(unicodedata.normalize("NFC", text).split())
    return " ".join(text.lower().split())


def text_mark(text: str) -> str:
    """What stands for a text: 32 hex digits, the same for all its spellings that `folded` makes equal."""
    return hashlib.sha256(folded(text).encode(errors="backslashreplace")).hexdigest()[:32]


def content_mark(row: Record) -> str:
    """What stands for the whole content of a row."""
    return hashlib.sha256(content(row)).hexdigest()[:32]


def load(store: Path) -> Tombstones:
    """The tombstones of a store; none where there is no file."""
    file = store / FILE
    return Tombstones.of(json.loads(file.read_text())) if file.exists() else NONE


def add(store: Path, more: Tombstones) -> Tombstones:
    """Add to the tombstones of a store, whoever else does so at the same time; returns all of them."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = load(store)
        if (after := before | more) != before:
            _replace(store / FILE, json.dumps(after.as_json(), indent=0))
        return after


def _replace(file: Path, text: str) -> None:
    """Write a file whole: after a crash it is the old or the new one."""
    draft = file.with_name(f".{file.name}")
    with draft.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.rename(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
