"""Validation: a table of facts about the prepared rows, and what follows from the rows that fail expectations.

Whoever checks the table (Great Expectations, outside the core) says which rows fail which expectation; here those rows
are quarantined with their reasons, or the run is stopped. kept + quarantined = read, exactly.

An expectation that holds for its `mostly` share of the rows is met, yet the rows that fail it are quarantined too. Of
rows that fail uniqueness all copies are: dropping all but one is the work of `exact_dedup` in `data.process`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flywheel.counts import Count, Counts, most_common
from flywheel.errors import ValidationFailed
from flywheel.facts import NAMES, CountTokens, columns
from flywheel.methods.rows_fault import Fault, fault_of
from flywheel.modalities.rooms import ROOMS
from flywheel.overlap import contamination
from flywheel.record import Record, RowsWriter, content, located, quarantine, read_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from flywheel.recipe import Recipe, Validate

SPLITS = ("train", "heldout", "finetune_train", "finetune_heldout")
"""The files of prepared rows, where they exist, in the order of the table."""
FIRST_STAGE = ("train", "heldout")
"""The files whose rows were read from the sources; those of the second stage are made from them."""
CHUNK = 8_192
"""Rows whose facts are held as Python's values."""
Mask = NDArray[np.bool_]


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


def facts(
    room: Facts,
    rows: Path,
    by: str = "group",
    wanted: frozenset[str] | None = None,
    count_tokens: CountTokens | None = None,
) -> pd.DataFrame:
    """One row for each record in the directory: `split`, the `wanted` facts (None: `id` and the room's), and `leaks`.

    Facts are the room's and those of `flywheel.facts`, which come second; `digest` is here the first 64 bits of the
    hash, as a number, so that a table of millions of rows stays small. A row leaks when its `digest`, or in a split
    by group its group, also stands on the other side; the fine-tuning files belong to the side that they were made
    from. Facts that a row has not are null. The index counts from 0 over the files in the order of `SPLITS`.
    `attrs["columns"]` names every fact that could be wanted.
    """
    import pyarrow as pa

    chunks, waiting = list[pa.Table](), list[dict[str, Any]]()
    marks, known = Marks(by), set(NAMES)
    for split, record in _read(rows):
        found = {**room.facts(record), **columns(record, wanted or frozenset(), count_tokens)}
        known.update(found)
        named = {"id": record.id, "split": split, **found, **_number(found)}
        waiting.append({name: named[name] for name in named if wanted is None or name in wanted or name == "split"})
        if wanted is None or "leaks" in wanted:
            marks.add(record, found, _held_out(split))
        if len(waiting) == CHUNK:
            chunks.append(_chunk(waiting))
            waiting.clear()
    # Chunks in which a fact has no value at all take its type from the others.
    table = pa.concat_tables([*chunks, _chunk(waiting)], promote_options="permissive")
    del chunks
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    if wanted is None or "leaks" in wanted:
        frame["leaks"] = marks.leaks()
    frame.attrs["columns"] = sorted(known)
    return frame


def _chunk(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _number(found: Mapping[str, Any]) -> dict[str, int]:
    return {"digest": int(found["digest"][:16], 16) - (1 << 63)} if "digest" in found else {}


class Marks:
    """What must not stand on both sides: the content of each row and, in a split by group, its group."""

    def __init__(self, by: str) -> None:
        self._by_group = by == "group"
        self._contents, self._groups, self._grouped, self._heldout = array("q"), array("q"), array("b"), array("b")

    def add(self, record: Record, found: Mapping[str, Any], heldout: bool) -> None:
        group = record.origin.get("group") if self._by_group else None
        self._contents.append(hash(found["digest"]) if "digest" in found else hash(content(record)))
        self._groups.append(hash((record.origin.get("source"), group)))
        self._grouped.append(group is not None)
        self._heldout.append(heldout)

    def leaks(self) -> Mask:
        """Whether each row shares a mark with one of the other side, shape (rows,)."""
        heldout = np.array(self._heldout, np.bool_)
        by_content = _shared(np.array(self._contents), heldout, np.ones(len(heldout), np.bool_))
        return by_content | _shared(np.array(self._groups), heldout, np.array(self._grouped, np.bool_))


def _shared(marks: NDArray[np.int64], heldout: Mask, counted: Mask) -> Mask:
    both = np.intersect1d(marks[heldout & counted], marks[~heldout & counted])
    return counted & np.isin(marks, both)


def apply(
    rows: Path, outcome: Outcome, config: Validate, out: Path, faults: Mapping[str, Fault] | None = None
) -> dict[str, Any]:
    """Write the rows that passed under their own file names, `quarantine.parquet`, and the summary as `report.json`.

    `faults` has for a file of rows the check of the method that learns them; what it finds comes before the
    expectations. A quarantined row's origin gains `split` and `reasons`. The summary counts rows `read`, `kept`, and
    `quarantined` by the first reason of each: those read from the sources in total and by source, and `all`, the rows
    of the second stage and augmented copies included; and kept `rows` by file. Raises ValidationFailed, after the files
    are written, for failures of the suite, for any failing row under `on_failure: fail`, for a larger share of failing
    rows than `max_quarantined`, and for a file that is left without rows. Where `max_contamination` is given the
    summary holds the `contamination` of the kept rows, and more of it raises as well.
    """
    checks, first = faults or {}, ""
    counts, by_file = Counts(), {split: Count() for split in SPLITS if located(rows, split) is not None}
    with ExitStack() as files:
        writers = {split: files.enter_context(RowsWriter(out / f"{split}.parquet")) for split in by_file}
        aside = files.enter_context(RowsWriter(out / "quarantine.parquet"))
        for position, (split, record) in enumerate(_read(rows)):
            fault = checks[split](record) if split in checks else ""
            reasons = [*([fault] if fault else []), *outcome.row_failures.get(position, ())]
            found = quarantine(record, reasons[0]) if reasons else record
            by_file[split].add(found)
            if split in FIRST_STAGE and "augmented" not in record.origin:
                counts.add(found)
            if reasons:
                first = first or _where(record, reasons[0])
                aside.write(record.with_fields(origin={**record.origin, "split": split, "reasons": list(reasons)}))
            else:
                writers[split].write(record)
    total = Count()
    for count in by_file.values():
        total.update(count)
    summary: dict[str, Any] = {
        **counts.as_json(),
        "all": total.as_json(),
        "rows": {split: count.kept for split, count in by_file.items()},
        "expectations": outcome.evaluated,
        "suite_failures": list(outcome.suite_failures),
    }
    if config.max_contamination is not None:
        summary["contamination"] = contamination(out / "train.parquet", out / "heldout.parquet", out)
    (out / "report.json").write_text(json.dumps(summary, indent=1))
    emptied = [split for split, count in by_file.items() if count.read and not count.kept]
    _judge({**summary, "first": first}, config, emptied, out)
    return summary


def faults(recipe: Recipe) -> dict[str, Fault]:
    """For each file of rows the check of the method of its stage."""
    columns = ROOMS[recipe.model.modality].columns
    first, second = (fault_of(getattr(stage, "method", None), columns) for stage in (recipe.train, recipe.finetune))
    return {split: first if split in FIRST_STAGE else second for split in SPLITS}


def _where(row: Record, reason: str) -> str:
    """A row by its place, for a message."""
    place, source = row.origin.get("path", ""), row.origin.get("source", "")
    return f"; the first is {place} of source {source!r} ({row.id}): {reason}"


def _judge(summary: Mapping[str, Any], config: Validate, emptied: Sequence[str], out: Path) -> None:
    """Raise when the rows must not be trained on."""
    failures = summary["suite_failures"]
    quarantined, read = summary["all"]["quarantined"], summary["all"]["read"]
    count, by_reason = sum(quarantined.values()), most_common(quarantined.items())
    found = f"{count} of {read} rows fail: {by_reason}{summary['first']}"
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
    _judge_contamination(summary, config, out)


def _judge_contamination(summary: Mapping[str, Any], config: Validate, out: Path) -> None:
    """Raise when too much of what is held out was seen in training."""
    if config.max_contamination is None:
        return
    found = summary["contamination"]
    if found["rate"] > config.max_contamination:
        pairs = ", ".join(" in ".join(pair.values()) for pair in found["examples"][:3])
        raise ValidationFailed(
            "held-out rows",
            found=f"{found['rows']} of {found['heldout']} ({found['rate']:.1%}) stand in training rows, in part or"
            f" nearly whole: {pairs}",
            expected=f"at most {config.max_contamination:.1%} (`data.validate.max_contamination`)",
            remedy="drop shared passages under `data.process` (`near_dedup`, `decontaminate`), or give rows that share"
            f" them one `group`; see {out / 'report.json'}",
        )


def _read(rows: Path) -> Iterator[tuple[str, Record]]:
    for split in SPLITS:
        if (path := located(rows, split)) is not None:
            for record in read_rows(path):
                yield split, record


def _held_out(split: str) -> bool:
    return split.endswith("heldout")
