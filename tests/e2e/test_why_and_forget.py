"""From a registered version back to its rows, and from a subject to what must be trained again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows import provenance
from flywheel import artifact
from flywheel.errors import SourceError
from flywheel.sources import tombstones
from tests.e2e.conftest import Run
from tests.recipes import code_files, code_recipe, write

SUBJECT = "Jane Q. Doe"


@pytest.fixture(scope="module")
def recipe(home: Path) -> Path:
    source = code_files(home / "src")
    for name in ("module1/file0.py", "module5/file1.py"):
        (source / name).write_text(f"# written by {SUBJECT}\n" + (source / name).read_text())
    base = code_recipe(source)
    changes = {
        "train": {**base["train"], "max_steps": 4},
        "evaluate": {"num_samples": 4, "generation": {"max_new_tokens": 4}},
        "features": {"type": "tfidf"},
        "objective": {"metric": "bits_per_byte", "thresholds": {"bits_per_byte": {"max": 100}}},
    }
    return write(home / "r.yaml", {**base, **changes})


@pytest.fixture(scope="module")
def report(flywheel: Run, recipe: Path) -> dict[str, Any]:
    done = flywheel("run", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))


def fingerprint(report: Mapping[str, Any], step: str) -> str:
    return next(str(s["fingerprint"]) for s in report["steps"] if s["name"] == step)


def test_why_answers_for_the_champion_and_for_a_version(report: dict[str, Any]) -> None:
    found = provenance.why("tiny-coder")
    assert (found["model"], found["version"], found["aliases"]) == ("tiny-coder", 1, ["champion"])
    assert found["lineage"]["validate"] == fingerprint(report, "validate")
    (source,) = found["sources"]
    assert (source["name"], source["license"], source["read"]) == ("src", "MIT", 16)
    assert sum(found["rows"].values()) == 16
    assert provenance.why("tiny-coder/1") == found


def test_why_finds_a_text_and_its_row(report: dict[str, Any]) -> None:
    found = provenance.why("tiny-coder@champion", text="written by jane q. doe")["found"]
    assert {row["path"] for row in found} == {"module1/file0.py", "module5/file1.py"}
    (again,) = provenance.why("tiny-coder", row=found[0]["id"])["found"]
    assert (again["id"], again["where"]) == (found[0]["id"], found[0]["where"])
    near = provenance.why("tiny-coder", text="Return the value times 5 plus 14 and nothing more")
    assert near["found"] == []
    assert 0 < near["nearest"][0]["similarity"] < 1


def test_why_explains_itself_on_the_terminal(report: dict[str, Any], flywheel: Run) -> None:
    done = flywheel("why", "tiny-coder", "--text", "a text that nobody ever wrote")
    assert "not in its data" in done.stdout
    with pytest.raises(SourceError, match="leave one out"):
        provenance.why("tiny-coder", row="0", text="0")


def test_a_dry_run_lists_everything_and_changes_nothing(report: dict[str, Any], home: Path) -> None:
    found = provenance.forget(SUBJECT, really=False)
    assert {row["path"] for row in found["rows"]} == {"module1/file0.py", "module5/file1.py"}
    assert {d["step"]: sum(d["rows"].values()) for d in found["datasets"]} == {"ingest": 2, "prepare": 2, "validate": 2}
    assert {d["fingerprint"] for d in found["datasets"]} == {
        fingerprint(report, step) for step in ("ingest", "prepare", "validate")
    }
    later = {"features", "train", "evaluate", "champion", "gate", "export", "register", "deploy"}
    assert {a["step"] for a in found["artifacts"]} == later
    assert found["caches"]
    (version,) = found["retrain"]
    assert (version["model"], version["version"], version["aliases"]) == ("tiny-coder", 1, ["champion"])
    assert version["trained_on"] + version["evaluated_on"] == 2
    assert not (home / "store" / tombstones.FILE).exists()
    assert all((home / "store" / path).exists() for path in found["caches"])


def test_forgetting_tells_what_was_done_and_what_is_left_to_do(report: dict[str, Any], flywheel: Run) -> None:
    done = flywheel("forget", "--subject", SUBJECT.upper())
    assert done.returncode == 0, done.stderr
    for words in (
        "2 rows hold",
        "no later run reads these rows",
        "retrain tiny-coder version 1 @champion",
        "src/module1",
    ):
        assert words in done.stdout
    again = provenance.forget(SUBJECT, really=True)
    assert not again["new"]
    assert again["caches"] == []
    assert len(again["rows"]) == 2


def test_the_next_run_does_without_the_rows(report: dict[str, Any], flywheel: Run, recipe: Path, home: Path) -> None:
    (home / "src" / "module1" / "file0.py").rename(home / "src" / "module1" / "renamed.py")
    done = flywheel("data", "check", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["read"], found["kept"], found["dropped"], found["quarantined"]) == (16, 14, {"forgotten": 2}, {})
    (newest, *_) = artifact.existing(home / "store", "validate")
    assert newest.fingerprint != fingerprint(report, "validate")
    assert [d["fingerprint"] for d in provenance.forget(SUBJECT, really=False)["datasets"]] == [
        fingerprint(report, step) for step in ("ingest", "prepare", "validate")
    ]


def test_the_dataset_card_is_in_mlflow_and_prefect(report: dict[str, Any], home: Path) -> None:
    mark = fingerprint(report, "validate")
    card = (home / "store" / "validate" / mark / "DATACARD.md").read_text()
    assert "16 rows kept of 16 read" in card
    assert card in [p.read_text() for p in (home / "mlartifacts").rglob("data-docs/DATACARD.md")]
    with sqlite3.connect(home / "prefect" / "prefect.db") as db:
        shown = db.execute("select data from artifact where key = 'dataset-card'").fetchall()
    assert any("# Data of tiny-coder" in data for (data,) in shown)


def test_a_subject_that_nobody_can_see_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="at least two characters"):
        provenance.forget(" ", really=True)
