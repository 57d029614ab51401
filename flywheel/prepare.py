"""Prepare: clean rows in the recipe's order, split them, keep the two sides apart, and make the second stage's rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flywheel import dedup
from flywheel.cleaning import EXPANDING, OPERATIONS, check_operations, named
from flywheel.errors import SourceError
from flywheel.recipe import Operation, Recipe
from flywheel.record import Dropped, Record, content, count_reasons, read_rows, write_dropped, write_rows
from flywheel.split import split


def prepare(recipe: Recipe, rows: Path, out: Path) -> dict[str, Any]:
    """Turn ingested rows (a Parquet file) into the files that validation reads, all in `out`.

    `train.parquet`, `heldout.parquet` and `dropped.json`; where the recipe has a second stage also
    `finetune_train.parquet` and `finetune_heldout.parquet`, made from the two sides one by one.
    Returns counts and bytes, where kept + dropped = read and train + heldout = kept.
    Raises RecipeError for an operation that does not fit and SourceError where a side would be empty.
    """
    check_operations(recipe.data.process)
    read = list(read_rows(rows))
    kept, dropped, operations = _apply(recipe.data.process, read)
    _at_least_one(kept, dropped, "prepared rows")
    train, heldout = split(kept, recipe.data.split, recipe.seed)
    train, leaked = _sorted_out(dedup.apart(train, heldout))
    dropped += leaked
    _at_least_one(train, dropped, "training rows")
    summary: dict[str, Any] = {
        "read": len(read),
        "kept": len(train) + len(heldout),
        "dropped": count_reasons(dropped),
        "train": write_rows(out / "train.parquet", train),
        "heldout": write_rows(out / "heldout.parquet", heldout),
        "bytes_train": _bytes(train),
        "bytes_heldout": _bytes(heldout),
        "operations": operations,
    }
    if recipe.finetune is not None:
        second, lost = _second_stage(recipe.finetune.process, train, heldout, out)
        summary |= second
        dropped += lost
    write_dropped(out / "dropped.json", dropped)
    return summary


def _second_stage(
    process: Sequence[Operation], train: Sequence[Record], heldout: Sequence[Record], out: Path
) -> tuple[dict[str, Any], list[Dropped]]:
    """Rows of the second stage for each side; equal rows are kept once, and none stands (nearly) on both sides."""
    check_operations(process, "finetune.process")
    steps = (*process, "exact_dedup")
    train_rows, dropped, train_operations = _apply(steps, train)
    heldout_rows, more, heldout_operations = _apply(steps, heldout)
    train_rows, leaked = _sorted_out(dedup.apart(train_rows, heldout_rows))
    dropped += more + leaked
    _at_least_one(train_rows, dropped, "rows to fine-tune on")
    _at_least_one(heldout_rows, dropped, "held-out rows for fine-tuning")
    summary = {
        "finetune_train": write_rows(out / "finetune_train.parquet", train_rows),
        "finetune_heldout": write_rows(out / "finetune_heldout.parquet", heldout_rows),
        "finetune_dropped": count_reasons(dropped),
        "bytes_finetune_train": _bytes(train_rows),
        "bytes_finetune_heldout": _bytes(heldout_rows),
        "finetune_operations": {"train": train_operations, "heldout": heldout_operations},
    }
    return summary, dropped


def _apply(
    operations: Sequence[Operation], rows: Sequence[Record]
) -> tuple[list[Record], list[Dropped], list[dict[str, Any]]]:
    """Run operations one after the other; says of each how many rows it read, made and dropped.

    An expanding operation reads parents and makes rows of them: `parents` says how many were expanded, so that
    parents + dropped = read there and made + dropped = read everywhere else.
    """
    current, dropped, report = list(rows), list[Dropped](), list[dict[str, Any]]()
    for operation in operations:
        name, arguments = named(operation)
        made, lost = _sorted_out(OPERATIONS[name](current, **arguments))
        counts = {"operation": name, "read": len(current), "made": len(made), "dropped": count_reasons(lost)}
        if name in EXPANDING:
            counts["parents"] = len(current) - len(lost)
        report.append(counts)
        current, dropped = made, dropped + lost
    return current, dropped, report


def _sorted_out(rows: Any) -> tuple[list[Record], list[Dropped]]:
    kept, dropped = list[Record](), list[Dropped]()
    for row in rows:
        if isinstance(row, Dropped):
            dropped.append(row)
        else:
            kept.append(row)
    return kept, dropped


def _bytes(rows: Sequence[Record]) -> int:
    return sum(len(content(row)) for row in rows)


def _at_least_one(rows: Sequence[Record], dropped: Sequence[Dropped], what: str) -> None:
    if not rows:
        raise SourceError(
            what,
            found=f"none; dropped: {count_reasons(dropped)}",
            expected="at least one",
            remedy="relax the operations that drop so much, or give more data",
        )
