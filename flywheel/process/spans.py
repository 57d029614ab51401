"""Parts of a text that were found, and what becomes of them: masked, or the row dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from flywheel.record import Outcomes, Record, drop, map_texts, texts

Action = Literal["mask", "drop"]


class Match(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text, and what they are."""

    kind: str
    start: int
    end: int


def disjoint(found: Iterable[Match], rank: Mapping[str, int]) -> list[Match]:
    """The matches in order, without overlaps: of two that overlap, the one whose kind has the lower rank stays."""
    kept: list[Match] = []
    for match in sorted(found, key=lambda m: (m.start, rank[m.kind], -m.end)):
        if not kept or match.start >= kept[-1].end:
            kept.append(match)
        elif rank[match.kind] < rank[kept[-1].kind]:
            kept[-1] = match
    return kept


def masked(text: str, matches: Sequence[Match]) -> str:
    """The text with each match replaced by its kind: `<EMAIL>`. The matches are in order and do not overlap."""
    parts, done = [], 0
    for match in matches:
        parts += [text[done : match.start], f"<{match.kind.upper()}>"]
        done = match.end
    return "".join([*parts, text[done:]])


def mask_rows(rows: Iterable[Record], find: Callable[[str], list[Match]], key: str) -> Outcomes:
    """Rows with the matches masked; `origin[key]` counts them by kind, on top of what it counted before."""
    for row in rows:
        counts = Counter[str](row.origin.get(key, {}))
        before = counts.total()

        def change(text: str, counts: Counter[str] = counts) -> str:
            matches = find(text)
            if not matches:
                return text
            counts.update(match.kind for match in matches)
            return masked(text, matches)

        changed = map_texts(row, change)
        yield changed.with_fields(origin={**row.origin, key: dict(counts)}) if counts.total() > before else changed


def drop_rows(rows: Iterable[Record], find: Callable[[str], list[Match]], reason: str) -> Outcomes:
    """Rows without a match; the others are dropped for the reason, with the kinds as the detail, never the text."""
    for row in rows:
        kinds = Counter(match.kind for text in texts(row) for match in find(text))
        detail = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        yield drop(row, reason, detail) if kinds else row
