"""One tiny recipe from files to a served model, through the command line; each test goes on from the one before."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel import artifact, recipe_file
from flywheel.errors import ArtifactError
from flywheel.features import table
from flywheel.features.extract import read_vectors
from flywheel.plan import plan
from flywheel.record import read_rows
from infra.registry import Registered
from infra.settings import Settings
from tasks.shell import Job, perform
from tests.e2e.conftest import Run
from tests.recipes import code_files, code_recipe, write


@pytest.fixture(scope="module")
def recipe(home: Path) -> Path:
    changes = {"finetune": finetune(), "peft": {"r": 4}, "optimize": {"precisions": ["fp32", "int8"]}}
    changes["features"] = {"type": "tfidf", "max_features": 64}
    whole = code_recipe(code_files(home / "src"), **changes)
    whole["data"]["validate"]["max_contamination"] = 1
    return write(home / "r.yaml", whole)


def finetune() -> dict[str, Any]:
    stage = code_recipe(Path())["train"]
    return {**stage, "max_steps": 8, "process": [{"docstring_pairs": {"min_words": 2}}]}


@pytest.fixture(scope="module")
def report(flywheel: Run, recipe: Path, home: Path) -> dict[str, Any]:
    done = flywheel("run", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result == json.loads((home / "last-run.json").read_text())
    return result


def test_the_report_holds_what_it_promises(report: dict[str, Any]) -> None:
    assert report["recipe"] == "tiny-coder"
    assert report["flow_run_id"]
    assert report["mlflow_run_id"]
    first = ["ingest", "prepare", "validate", "features"]
    last = ["champion", "export", "gate", "register", "deploy"]
    assert [s["name"] for s in report["steps"]] == [*first, "train", "finetune", "evaluate", *last]
    assert all(not s["cached"] and s["reason"] == "never built" for s in report["steps"])
    for metric in report["metrics"].values():
        assert {"value", "low", "high", "better", "baseline", "before"} <= set(metric)
    fp32 = report["export"][0]
    assert (fp32["precision"], fp32["accepted"]) == ("fp32", True)
    assert fp32["tokens_equal"] == fp32["tokens_compared"] >= 128
    assert report["model"] == {"name": "tiny-coder", "version": 1, "alias": "champion", "kind": "text"}
    assert report["served"]["answer"]


def test_the_vectoriser_gives_the_same_vectors_again(report: dict[str, Any], home: Path) -> None:
    marks = {s["name"]: s["fingerprint"] for s in report["steps"]}
    rows, made = (artifact.location(home / "store", step, marks[step]) for step in ("validate", "features"))
    ids, vectors = read_vectors(made / "heldout.parquet")
    heldout = list(read_rows(rows / "heldout.parquet"))
    assert ids == [row.id for row in heldout]
    assert np.array_equal(table.load(made / "vectoriser").transform(heldout), vectors)


def test_contamination_stands_among_the_metrics_and_on_the_dataset_card(report: dict[str, Any], home: Path) -> None:
    mark = next(s["fingerprint"] for s in report["steps"] if s["name"] == "validate")
    made = artifact.location(home / "store", "validate", mark)
    found = artifact.load(made).summary["contamination"]
    assert f"{found['rows']} of {found['heldout']} held-out rows" in (made / "DATACARD.md").read_text()
    with sqlite3.connect(home / "mlflow.db") as db:
        (logged,) = db.execute("select value from metrics where key = 'contamination.rate'").fetchone()
    assert logged == pytest.approx(found["rate"])


def test_the_weights_are_in_the_registry_once(report: dict[str, Any], home: Path) -> None:
    assert len(list((home / "mlartifacts").rglob("fp32/*.onnx"))) == 1


def test_mlflow_holds_a_parent_run_with_a_child_for_each_step(report: dict[str, Any], home: Path) -> None:
    with sqlite3.connect(home / "mlflow.db") as db:
        children = db.execute("select run_uuid from tags where key='mlflow.parentRunId'").fetchall()
        unfinished = db.execute("select count(*) from runs where status != 'FINISHED'").fetchone()
    assert len(children) == len(report["steps"])
    assert unfinished == (0,)


def test_the_pictures_and_the_data_docs_are_kept(report: dict[str, Any], home: Path) -> None:
    kept = {p.name for p in (home / "mlartifacts").rglob("*") if p.is_file()}
    assert {"loss.png", "metrics.png", "index.html", "recipe.yaml", "README.md", "MANIFEST.json"} <= kept


def test_a_second_run_hits_everywhere_and_starts_nothing(report: dict[str, Any], flywheel: Run, recipe: Path) -> None:
    done = flywheel("run", str(recipe), "--json")
    again = json.loads(done.stdout)
    assert "nothing to do" in done.stderr
    assert all(s["cached"] for s in again["steps"])
    assert again["flow_run_id"] is None
    assert again["metrics"] == report["metrics"]
    assert again["model"] == report["model"]


def test_plan_and_run_agree(report: dict[str, Any], flywheel: Run, recipe: Path) -> None:
    override = "objective.thresholds={parse_rate: {min: 0}}"
    planned = json.loads(flywheel("plan", str(recipe), override, "--json").stdout)["steps"]
    done = json.loads(flywheel("run", str(recipe), override, "--json").stdout)["steps"]
    assert [{k: v for k, v in s.items() if k != "seconds"} for s in done] == planned
    assert [s["name"] for s in planned if not s["cached"]] == ["gate", "register", "deploy"]


def test_going_back_to_an_earlier_recipe_makes_its_version_the_champion_again(
    report: dict[str, Any], flywheel: Run, recipe: Path
) -> None:
    done = json.loads(flywheel("run", str(recipe), "--json").stdout)
    assert done["model"]["version"] == 1
    assert all(s["cached"] for s in json.loads(flywheel("plan", str(recipe), "--json").stdout)["steps"])


def test_a_damaged_artifact_is_rebuilt_to_the_same_bytes(
    report: dict[str, Any], flywheel: Run, recipe: Path, home: Path
) -> None:
    mark = next(s["fingerprint"] for s in report["steps"] if s["name"] == "prepare")
    folder = artifact.location(home / "store", "prepare", mark)
    before, file = artifact.load(folder).files, next((folder / "train").glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    done = json.loads(flywheel("run", str(recipe), "--json").stdout)
    assert [s["name"] for s in done["steps"] if not s["cached"]] == ["prepare"]
    repaired = artifact.intact(folder)
    assert repaired is not None
    assert repaired.files == before


def test_a_damaged_registered_file_is_registered_anew(
    report: dict[str, Any], flywheel: Run, recipe: Path, home: Path
) -> None:
    for graph in (home / "mlartifacts").rglob("fp32/*.onnx"):
        graph.write_bytes(graph.read_bytes()[:-1])
    done = json.loads(flywheel("run", str(recipe), "--json").stdout)
    assert [s["name"] for s in done["steps"] if not s["cached"]] == ["register", "deploy"]
    assert done["model"]["version"] > 2
    assert done["served"]["answer"]


def test_code_that_changes_during_a_run_never_enters_the_store(tmp_path: Path) -> None:
    recipe = recipe_file.load(write(tmp_path / "r.yaml", code_recipe(code_files(tmp_path / "src", 2))))
    settings = Settings.load({"FLYWHEEL_HOME": str(tmp_path / "home")})
    step = plan(recipe, settings.store, Registered(settings))[0]
    next((tmp_path / "src").rglob("*.py")).write_text("x = 1\n")
    with pytest.raises(ArtifactError, match="since the run was planned"):
        perform(Job(recipe, step, settings, "no-run"), lambda scope: {})
    assert artifact.existing(settings.store, "ingest") == []


def test_a_gate_that_refuses_registers_a_challenger_and_exits_with_3(flywheel: Run, recipe: Path, report: Any) -> None:
    done = flywheel("run", str(recipe), "objective.thresholds={parse_rate: {min: 1.01}}", "--json")
    assert done.returncode == 3
    result = json.loads(done.stdout)
    assert result["model"]["alias"] == "challenger"
    assert not result["served"]["served"]
    assert "parse_rate" in result["gate"]["reasons"][0]


def test_a_failing_suite_stops_the_run_and_names_the_expectation(flywheel: Run, recipe: Path, report: Any) -> None:
    suite = "data.validate.expectations=[{expect_table_row_count_to_be_between: {min_value: 100000}}]"
    done = flywheel("run", str(recipe), suite)
    assert done.returncode == 1
    assert "expect_table_row_count_to_be_between" in done.stderr
    assert "Traceback" not in done.stderr
