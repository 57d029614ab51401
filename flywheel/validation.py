"""Validation: a table of facts about the prepared rows, and what follows from the rows that fail expectations.

Whoever checks the table (Great Expectations, outside the core) says which rows fail which expectation; here those rows
are quarantined with their reasons, or the run is stopped. kept + quarantined = read, exactly.

An expectation that holds for its `mostly` share of the rows is met, yet the rows that fail it are quarantined too. Of
rows that fail uniqueness all copies are: dropping all but one is the work of `exact_dedup` in `data.process`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flywheel.errors import ValidationFailed
from flywheel.record import Record, read_rows, write_rows

if TYPE_CHECKING:
    import pandas as pd

    from flywheel.recipe import Validate

SPLITS = ("train", "heldout", "finetune_train", "finetune_heldout")
"""The files of prepared rows, where they exist, in the order of the table."""


class Facts(Protocol):
    """The one method of a modality that validation needs."""

    def facts(self, record: Record) -> Mapping[str, bool | int | float | str]:
        """Columns that expectations may name for this row."""


class Outcome(Protocol):
    """What a check of the table of facts found."""

    @property
    def row_failures(self) -> Mapping[int, Sequence[str]]:
        """Position of a failing row in the table → the expectations that it fails."""

    @property
    def suite_failures(self) -> Sequence[str]:
        """Expectations on the table as a whole that failed, each with what was found."""

    @property
    def evaluated(self) -> int:
        """Number of expectations."""


def facts(room: Facts, rows: Path, by: str = "group") -> pd.DataFrame:
    """One row for each record in the directory: `id`, `split`, the room's facts, and `leaks`.

    A row leaks when its `digest`, or in a split by group its group, also stands on the other side; the fine-tuning
    files belong to the side that they were made from. Facts that a row has not are null. The index counts from 0 over
    the files in the order of `SPLITS`.
    """
    import pandas as pd

    table: list[dict[str, Any]] = []
    marks: list[list[Hashable]] = []
    sides: defaultdict[Hashable, set[bool]] = defaultdict(set)
    for split, record in _read(rows):
        row = {"id": record.id, "split": split, **room.facts(record)}
        own: list[Hashable] = [("digest", row["digest"])] if "digest" in row else []
        if by == "group" and "group" in record.origin:
            own.append(("group", record.origin.get("source"), record.origin["group"]))
        for mark in own:
            sides[mark].add(_held_out(split))
        table.append(row)
        marks.append(own)
    for row, own in zip(table, marks, strict=True):
        row["leaks"] = any(len(sides[mark]) > 1 for mark in own)
    return pd.DataFrame(table)


def apply(rows: Path, outcome: Outcome, config: Validate, out: Path) -> dict[str, Any]:
    """Write the rows that passed under their own file names, `quarantine.parquet`, and the summary as `report.json`.

    A quarantined row's origin gains `split` and `reasons`. The summary counts rows `read`, `kept`, `quarantined` by the
    first expectation that each fails, and kept `rows` by file. Raises ValidationFailed, after the files are written,
    for failures of the suite, for any failing row under `on_failure: fail`, for a larger share of failing rows than
    `max_quarantined`, and for a file that is left without rows.
    """
    kept: dict[str, list[Record]] = {split: [] for split in SPLITS if (rows / f"{split}.parquet").exists()}
    quarantined: list[Record] = []
    before: Counter[str] = Counter()
    for position, (split, record) in enumerate(_read(rows)):
        before[split] += 1
        reasons = outcome.row_failures.get(position)
        if reasons:
            origin = {**record.origin, "split": split, "reasons": list(reasons)}
            quarantined.append(record.with_fields(origin=origin))
        else:
            kept[split].append(record)
    for split, records in kept.items():
        write_rows(out / f"{split}.parquet", records)
    write_rows(out / "quarantine.parquet", quarantined)
    summary = {
        "read": before.total(),
        "kept": sum(map(len, kept.values())),
        "quarantined": dict(Counter(record.origin["reasons"][0] for record in quarantined).most_common()),
        "rows": {split: len(records) for split, records in kept.items()},
        "expectations": outcome.evaluated,
        "suite_failures": list(outcome.suite_failures),
    }
    (out / "report.json").write_text(json.dumps(summary, indent=1))
    _judge(summary, config, [split for split in kept if before[split] and not kept[split]], out)
    return summary


def _judge(summary: Mapping[str, Any], config: Validate, emptied: Sequence[str], out: Path) -> None:
    """Raise when the rows must not be trained on."""
    failures = summary["suite_failures"]
    count, read = sum(summary["quarantined"].values()), summary["read"]
    by_reason = "; ".join(f"{reason}: {n}" for reason, n in summary["quarantined"].items())
    found = f"{count} of {read} rows fail: {by_reason}"
    look = f"see {out / 'docs' / 'index.html'} and {out / 'quarantine.parquet'}"
    if failures:
        raise ValidationFailed(
            f"{len(failures)} of {summary['expectations']} expectations on the data as a whole",
            found="; ".join(failures),
            expected="all of them met",
            remedy=f"correct the data, or the expectations under `data.validate`; {look}",
        )
    if count and config.on_failure == "fail":
        raise ValidationFailed(
            "expectations on rows",
            found=found,
            expected="no failing row, as `data.validate.on_failure` is `fail`",
            remedy=f"correct the data, or set on_failure to `quarantine`; {look}",
        )
    if count > config.max_quarantined * read:
        raise ValidationFailed(
            "expectations on rows",
            found=found,
            expected=f"at most {config.max_quarantined:.1%} of the rows (`data.validate.max_quarantined`)",
            remedy=f"clean the data under `data.process`, or correct the expectations; {look}",
        )
    if emptied:
        raise ValidationFailed(
            f"rows of {', '.join(emptied)}",
            found=f"none left; {found}",
            expected="at least one row that meets the expectations",
            remedy=f"correct the expectations or read more data; {look}",
        )


def _read(rows: Path) -> Iterator[tuple[str, Record]]:
    for split in SPLITS:
        path = rows / f"{split}.parquet"
        if path.exists():
            for record in read_rows(path):
                yield split, record


def _held_out(split: str) -> bool:
    return split.endswith("heldout")
