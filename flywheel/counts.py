"""Counts of rows by source: what was read, kept, dropped and quarantined, and the proof that they add up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flywheel.record import Dropped, LeftOut, Outcome, Quarantined, Record


@dataclass
class Count:
    """Rows of one source, or of all."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason → rows."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Reason → rows."""

    def add(self, row: Outcome) -> None:
        self.read += 1
        if isinstance(row, Record):
            self.kept += 1
        else:
            self.leave_out(row)

    def leave_out(self, row: LeftOut) -> None:
        (self.quarantined if isinstance(row, Quarantined) else self.dropped)[row.reason] += 1

    def update(self, other: Count) -> None:
        self.read += other.read
        self.kept += other.kept
        self.dropped += other.dropped
        self.quarantined += other.quarantined

    def add_up(self) -> bool:
        """kept + dropped + quarantined = read."""
        return self.kept + self.dropped.total() + self.quarantined.total() == self.read

    def as_json(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "quarantined": dict(sorted(self.quarantined.items())),
        }


class Counts:
    """Counts by source, in the order in which the sources were named or met."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.sources: defaultdict[str, Count] = defaultdict(Count, {name: Count() for name in names})

    def add(self, row: Outcome) -> Outcome:
        """Count a row, and hand it on."""
        source = str(row.origin.get("source", "")) if isinstance(row, Record) else row.source
        self.sources[source].add(row)
        return row

    def update(self, other: Counts) -> None:
        for name, count in other.sources.items():
            self.sources[name].update(count)

    def total(self) -> Count:
        found = Count()
        for count in self.sources.values():
            found.update(count)
        return found

    def after(self, later: Counts) -> Counts:
        """What both of two consecutive steps did: read by the first, kept by the second, left out by either."""
        both = Counts()
        for name in dict.fromkeys((*self.sources, *later.sources)):
            first, second = self.sources.get(name, Count()), later.sources.get(name, Count())
            both.sources[name] = Count(
                first.read, second.kept, first.dropped + second.dropped, first.quarantined + second.quarantined
            )
        return both

    def as_json(self) -> dict[str, Any]:
        """`read`, `kept`, `dropped` and `quarantined` (reason → rows) in total and under `sources` by name."""
        return {**self.total().as_json(), "sources": {name: c.as_json() for name, c in self.sources.items()}}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Counts:
        """Counts as `as_json` wrote them."""
        counts = cls()
        for name, c in found["sources"].items():
            counts.sources[name] = Count(c["read"], c["kept"], Counter(c["dropped"]), Counter(c["quarantined"]))
        return counts


def left_out(row: Mapping[str, Any]) -> Dropped | Quarantined:
    """A row that was left out, as `line` wrote it."""
    fields = {name: str(row[name]) for name in ("id", "reason", "path", "source", "detail")}
    return (Quarantined if row["quarantined"] else Dropped)(**fields)


def line(row: LeftOut) -> dict[str, Any]:
    """A row that was left out, as JSON."""
    return {
        "id": row.id,
        "quarantined": isinstance(row, Quarantined),
        "reason": row.reason,
        "source": row.source,
        "path": row.path,
        "detail": row.detail,
    }


def most_common(reasons: Iterable[tuple[str, int]]) -> str:
    """`too_short: 12; language: 3` for messages."""
    return "; ".join(f"{reason}: {number}" for reason, number in sorted(reasons, key=lambda r: (-r[1], r[0])))
