"""The data half of a run as the tasks do it, without Prefect and MLflow: artifacts in a store, with their lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flywheel import artifact, prepare, shards, validation
from flywheel.plan import plan
from flywheel.recipe import Recipe
from flywheel.record import Record, read_rows
from flywheel.sources import base, snapshots, tombstones
from tests.mapping import in_process

JANE = "jane.doe@example.org"
NOTES = [f"note number {n} is about the weather in the {n}th week of the year" for n in range(24)]
PROCESS: list[Any] = ["remove_html", "mask_pii", {"length_filter": {"min": 12}}, "exact_dedup"]


class NoRegistry:
    """Holds nothing."""

    uri = ""

    def fault(self, registered: Mapping[str, Any]) -> str:
        return ""

    def rival(self, name: str, weights: str) -> str:
        return ""


class PlainRoom:
    """Knows one fact."""

    def facts(self, record: Record) -> Mapping[str, bool | int | float | str]:
        return {"length": len(record.text or "")}


@dataclass
class Checked:
    """What a suite would find: rows that say `reject` fail."""

    row_failures: Mapping[int, Sequence[str]]
    suite_failures: Sequence[str] = ()
    evaluated: int = 1


@dataclass
class Data:
    """A store, and what the newest run put there."""

    store: Path
    lineage: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, Any] = field(default_factory=dict)

    def rows(self, split: str = "train") -> list[str]:
        """Everything that the rows of a split say."""
        path = artifact.location(self.store, "validate", self.lineage["validate"]) / f"{split}.parquet"
        return [row.text or f"{row.prompt} {row.completion}" for row in read_rows(path)]


def recipe(source: Mapping[str, Any] | Sequence[Mapping[str, Any]], **data: Any) -> Recipe:
    """A recipe over sources."""
    finetune = data.pop("finetune", None)
    sources = [source] if isinstance(source, Mapping) else list(source)
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": sources, "split": {"heldout": 0.25, "by": "id"}, **data},
            "model": {"modality": "code"},
            "finetune": finetune,
        }
    )


def write(root: Path, lines: list[str], name: str = "notes.jsonl") -> dict[str, Any]:
    """A source of files with these texts."""
    root.mkdir(exist_ok=True)
    (root / name).write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return {"type": "files", "path": str(root), "license": "MIT"}


def run(store: Path, wanted: Recipe) -> Data:
    """Ingest, prepare and validate."""
    done = Data(store)
    cache = shards.Cache(store / ".shards")
    for step in plan(wanted, store, NoRegistry(), last="validate"):
        done.lineage[step.name] = step.fingerprint
        target = artifact.location(store, step.name, step.fingerprint)
        if not step.cached:
            with artifact.locked(store, step.name, step.fingerprint) as building:
                summary = _work(step.name, wanted, done, cache, building.out)
                artifact.commit(
                    building, target=target, recipe=wanted.name, ingredients=step.ingredients, summary=summary
                )
        done.summaries[step.name] = artifact.load(target).summary
    return done


def _work(step: str, wanted: Recipe, done: Data, cache: shards.Cache, out: Path) -> dict[str, Any]:
    if step == "ingest":
        roots = snapshots.roots(done.store, wanted.data.sources)
        job = base.Ingest(wanted.data.sources, roots, cache, in_process, tombstones.load(done.store))
        return base.ingest(job, out)
    if step == "prepare":
        rows = artifact.location(done.store, "ingest", done.lineage["ingest"]) / "rows"
        return prepare.prepare(wanted, rows, out, cache, in_process)
    rows = artifact.location(done.store, "prepare", done.lineage["prepare"])
    frame = validation.facts(PlainRoom(), rows, wanted.data.split.by)
    said = [row.text or "" for split in validation.SPLITS if (rows / split).exists() for row in read_rows(rows / split)]
    failing = {position: ["expect_no_reject"] for position, text in enumerate(said) if "reject" in text}
    assert len(frame) == len(said)
    return validation.apply(rows, Checked(failing), wanted.data.validate_, out)
