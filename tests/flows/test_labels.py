"""Rows go out to be labelled, and the labels come back by the recipe."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flywheel import artifact, prepare, recipe_file, shards, validation
from flywheel.errors import SourceError
from flywheel.plan import PlannedStep, plan
from flywheel.record import Record, read_rows
from flywheel.sources import base
from infra.settings import Settings
from tests.flywheel.test_overlap import Found
from tests.flywheel.test_plan import REGISTRY
from tests.mapping import in_process
from tests.recipes import code_recipe, write

STEPS = ("ingest", "prepare", "validate")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    rows = [{"text": f"Message {n} says something of its own."} for n in range(40)]
    (tmp_path / "messages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def recipe(home: Path, *process: Mapping[str, Any]) -> Path:
    data = {
        "sources": [{"type": "files", "path": str(home / "messages.jsonl"), "license": "CC0-1.0"}],
        "process": list(process),
        "split": {"heldout": 0.25},
    }
    return write(home / "r.yaml", code_recipe(home, data=data))


def planned(path: Path) -> dict[str, PlannedStep]:
    return {s.name: s for s in plan(recipe_file.load(path), Settings.load().store, REGISTRY, last=STEPS[-1])}


def build(path: Path) -> dict[str, Any]:
    """Make the steps that are not up to date, in this process; returns the summary of `prepare`."""
    written, store = recipe_file.load(path), Settings.load().store
    cache, steps = shards.Cache(store / ".shards"), planned(path)
    places = {name: artifact.location(store, name, step.fingerprint) for name, step in steps.items()}

    def work(name: str, out: Path) -> dict[str, Any]:
        if name == "ingest":
            return base.ingest(base.Ingest(written.data.sources, {}, cache, in_process), out)
        if name == "prepare":
            return prepare.prepare(written, places["ingest"] / "rows", out, cache, in_process)
        return validation.apply(places["prepare"], Found(), written.data.validate_, out)

    for name, step in steps.items():
        if not step.cached:
            with artifact.locked(store, name, step.fingerprint) as building:
                summary, parts = work(name, building.out), step.ingredients
                artifact.commit(building, target=places[name], recipe=written.name, ingredients=parts, summary=summary)
    return dict(artifact.load(places["prepare"]).summary)


def flywheel(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def fill(batch: Path, copy: Path, labels: Mapping[str, str]) -> None:
    """What an annotator does in a spreadsheet; the file is named after them."""
    with batch.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    copy.parent.mkdir(exist_ok=True)
    with copy.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows({**line, "label": labels[line["id"]]} for line in lines)


def test_labels_go_out_and_come_back(home: Path) -> None:
    path, batch, labels = recipe(home), home / "batch.csv", home / "labels"
    too_early = flywheel("label", path, "-o", batch)
    assert isinstance(too_early.exception, SourceError)
    assert "not prepared yet: never built" in str(too_early.exception)
    build(path)
    done = flywheel("label", path, "-o", batch, "--count", 8)
    assert (done.exit_code, "wrote 8 rows" in done.output) == (0, True)

    with batch.open(encoding="utf-8-sig", newline="") as file:
        ids = [line["id"] for line in csv.DictReader(file)]
    ann = {row: "praise" if n < 4 else "blame" for n, row in enumerate(ids)}
    fill(batch, labels / "ann.csv", ann)
    fill(batch, labels / "bob.csv", {**ann, ids[0]: "blame", ids[7]: "praise"})
    found = json.loads(flywheel("agreement", labels, "--json").output)
    assert (found["items"], found["annotators"], found["observed"]) == (8, ["ann", "bob"], 0.75)
    assert found["cohen"] == {"ann / bob": 0.5}
    assert "0.5" in flywheel("agreement", labels).output

    recipe(home, {"import_labels": {"path": str(labels)}})
    assert {name: step.cached for name, step in planned(path).items()} == dict(
        zip(STEPS, (True, False, False), strict=True)
    )
    summary = build(path)
    assert (summary["read"], summary["kept"], summary["quarantined"]) == (40, 38, {"disagreement": 2})
    given = {row.id: row for row in kept(path) if row.label is not None}
    assert {id: row.label for id, row in given.items()} == {id: ann[id] for id in ids[1:7]}
    assert {json.dumps(row.origin["labels"]) for row in given.values()} == {'{"praise": 2}', '{"blame": 2}'}

    fill(batch, labels / "bob.csv", {**ann, ids[7]: "praise"})
    assert planned(path)["prepare"].reason == f"file {labels / 'bob.csv'} changed"
    assert build(path)["quarantined"] == {"disagreement": 1}
    assert {row.id: row.label for row in kept(path)}[ids[0]] == "praise"


def kept(path: Path) -> list[Record]:
    validated = artifact.location(Settings.load().store, "validate", planned(path)["validate"].fingerprint)
    return [row for side in ("train", "heldout") for row in read_rows(validated / f"{side}.parquet")]


def test_an_unknown_strategy_is_refused(home: Path) -> None:
    path = recipe(home)
    build(path)
    refused = flywheel("label", path, "-o", home / "b.csv", "--strategy", "easiest")
    assert "easiest" in str(refused.exception)
    assert not (home / "b.csv").exists()
