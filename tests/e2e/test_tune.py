"""A small search through the command line; each test goes on from the one before."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Run
from tests.recipes import code_files, code_recipe, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(home: Path) -> Path:
    space = {
        "train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "train.weight_decay": {"choices": [0.0, 0.1]},
    }
    whole = code_recipe(code_files(home / "src"), tune={"space": space, "n_trials": 3})
    whole["evaluate"]["generation"]["max_new_tokens"] = 4
    return write(home / "r.yaml", whole)


@pytest.fixture(scope="module")
def report(flywheel: Run, recipe: Path) -> dict[str, Any]:
    done = flywheel("tune", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_every_trial_comes_to_an_end_and_the_best_is_not_worse_than_the_recipe(report: dict[str, Any]) -> None:
    assert [t["number"] for t in report["trials"]] == [0, 1, 2]
    assert {t["state"] for t in report["trials"]} <= {"finished", "pruned"}
    first = report["trials"][0]
    assert first["params"] == {"train.learning_rate": 0.003, "train.weight_decay": 0.1}
    assert report["best"]["value"] <= first["value"]
    assert report["same_heldout_rows"]


def test_trials_are_runs_below_the_run_of_the_search(report: dict[str, Any], home: Path) -> None:
    with sqlite3.connect(home / "mlflow.db") as db:
        parents = "select run_uuid, value from tags where key = 'mlflow.parentRunId'"
        query = f"select name, run_uuid, value from runs left join ({parents}) using (run_uuid)"
        runs = {name: (run, parent) for name, run, parent in db.execute(query) if name.startswith(("tiny", "trial"))}
        rates = db.execute("select value from params where key = 'train.learning_rate'").fetchall()
    search, _ = runs.pop(report["study"])
    assert {name: parent for name, (_, parent) in runs.items()} == {f"trial-{n}": search for n in range(3)}
    assert len(rates) == 3


def test_a_finished_search_has_nothing_to_do(flywheel: Run, recipe: Path, report: dict[str, Any]) -> None:
    done = flywheel("tune", str(recipe), "--json")
    assert "nothing to do" in done.stderr
    again = json.loads(done.stdout)
    assert {**again, "seconds": 0} == {**report, "seconds": 0}


def test_it_goes_on_with_two_workers(flywheel: Run, recipe: Path, report: dict[str, Any]) -> None:
    done = flywheel("tune", str(recipe), "tune.n_trials=5", "tune.workers=2", "--json")
    assert done.returncode == 0, done.stderr
    more = json.loads(done.stdout)
    assert more["trials"][:3] == report["trials"]
    assert len(more["trials"]) == 5
    assert {t["state"] for t in more["trials"]} <= {"finished", "pruned"}


def test_the_best_recipe_needs_no_further_training(flywheel: Run, report: dict[str, Any]) -> None:
    done = flywheel("plan", report["best_recipe"], "--json")
    hits = {s["name"] for s in json.loads(done.stdout)["steps"] if s["cached"]}
    assert hits == {"ingest", "prepare", "validate", "train", "evaluate"}
