"""Measure the whole hostile corpus, each file alone: `python -m tests.hostile.measure [--fuzz N] [--json] [NAME ...]`.

Prints what became of each file, the seconds and the memory of its parser, what the parser tried and may not, and at the
end the sums. Takes about ten minutes and 3 GB of disk. The exit code is 1 where something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from tests.hostile.corpus import CASES, SOUND, flipped, truncated
from tests.hostile.running import Result, Runner, runner

MEMORY, SECONDS, GRACE = 1 << 30, 30.0, 1.0
"""Bytes and seconds of a parser, and the seconds that its end may take."""


@dataclass(frozen=True)
class Row:
    """What came of one file, or of the damaged files of one format."""

    name: str
    outcomes: dict[str, int]
    seconds: float
    megabytes: float
    strays: int
    asked: int
    attempts: int
    fault: str

    def __str__(self) -> str:
        told = ", ".join(f"{name} {number}" for name, number in self.outcomes.items())
        return f"{self.name:<28} {self.seconds:6.2f} s {self.megabytes:6.0f} MB  {told}  {self.fault}"


def _row(name: str, result: Result, fault: str) -> Row:
    wrong = [fault] if fault else []
    wrong += ["files written elsewhere"] if result.strays else []
    wrong += ["connections"] if result.asked else []
    wrong += ["memory"] if result.peak_bytes > MEMORY else []
    wrong += ["time"] if result.seconds > SECONDS + GRACE else []
    size, attempts = result.peak_bytes / 1e6, len(result.attempts)
    outcomes = dict(result.outcomes.most_common(6))
    return Row(
        name, outcomes, result.seconds, size, len(result.strays), result.asked, attempts, " and ".join(wrong).upper()
    )


def corpus(run: Runner, names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        result = run.run(**{name: CASES[name]})
        yield _row(name, result, "" if result.outcomes.keys() <= CASES[name].outcomes else "unexpected")


def damaged(run: Runner, number: int) -> Iterator[Row]:
    """Valid files of each format, `number` times cut off and `number` times changed."""
    for ending, (kind, _) in SOUND.items():
        data, names = run.fresh(), set()
        for count, content in enumerate((*truncated(ending, number, 1), *flipped(ending, number, 1))):
            names.add(f"{count:06d}.{ending}")
            (data / f"{count:06d}.{ending}").write_bytes(content)
        result = run.ingest(kind, data)
        lost = names - result.by_file.keys()
        faults = {reason for reason in result.outcomes if reason.startswith("parser_")}
        yield _row(f"{len(names)} damaged {ending}", result, " ".join(faults) + (" lost files" if lost else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names; all where none is given")
    parser.add_argument("--fuzz", type=int, default=2_000, help="damaged files of each format, of both kinds")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    names = [name for name in CASES if not asked.names or name.startswith(tuple(asked.names))]
    rows = []
    with tempfile.TemporaryDirectory() as place, runner(Path(place)) as run:
        for row in chain(corpus(run, names), damaged(run, asked.fuzz) if asked.fuzz else ()):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
        restarted = len(run.pool._all) - 1
    total: dict[str, object] = {
        "files": len(rows),
        "worker_restarts": restarted,
        "files_written_elsewhere": sum(row.strays for row in rows),
        "connections": sum(row.asked for row in rows),
        "attempts": sum(row.attempts for row in rows),
        "most_seconds": max((row.seconds for row in rows), default=0.0),
        "most_megabytes": max((row.megabytes for row in rows), default=0.0),
        "not_as_expected": [row.name for row in rows if row.fault],
    }
    print(json.dumps({"total": total, "rows": [asdict(row) for row in rows]}) if asked.json else json.dumps(total))
    return 1 if total["not_as_expected"] or restarted else 0


if __name__ == "__main__":
    sys.exit(main())
