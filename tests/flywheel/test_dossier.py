"""What a version says of itself, and what differs between two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flywheel import artifact, dossier
from flywheel.plan import plan
from flywheel.recipe import Recipe
from tests import stores


def trained(store: Path, recipe: Recipe) -> dict[str, str]:
    """Real data, and weights that stand for themselves: the fingerprint of each step."""
    marks = stores.run(store, recipe).lineage
    step = {s.name: s for s in plan(recipe, store, stores.NoRegistry(), last="train")}["train"]
    with artifact.locked(store, "train", step.fingerprint) as building:
        (building.out / "model").mkdir()
        (building.out / "adapter").mkdir()
        (building.out / "adapter" / "base.json").write_text('{"sha256": "abc"}')
        target = artifact.location(store, "train", step.fingerprint)
        artifact.commit(building, target=target, recipe="tiny", ingredients=step.ingredients, summary={})
    return {**marks, "train": step.fingerprint}


def test_sources_and_rows_have_fingerprints_and_licences(tmp_path: Path) -> None:
    recipe = stores.recipe(stores.write(tmp_path / "notes", stores.NOTES))
    marks = trained(tmp_path / "store", recipe)
    found = dossier.datasets(recipe, tmp_path / "store", marks)
    assert list(found["sources"]) == ["notes"]
    source = found["sources"]["notes"]
    assert (source["license"], source["read"], source["files"]) == ("MIT", len(stores.NOTES), 1)
    assert sum(rows["rows"] for rows in found["rows"].values()) == len(stores.NOTES)
    assert {len(rows["sha256"]) for rows in found["rows"].values()} == {len(source["sha256"])} == {64}
    assert found["base"] is None
    assert str(tmp_path) not in json.dumps(found)


def test_a_file_that_changes_changes_the_fingerprint_of_its_source(tmp_path: Path) -> None:
    found = []
    for lines in (stores.NOTES, stores.NOTES[:-1], stores.NOTES):
        recipe = stores.recipe(stores.write(tmp_path / "notes", lines))
        marks = trained(tmp_path / "store", recipe)
        found.append(dossier.datasets(recipe, tmp_path / "store", marks)["sources"]["notes"]["sha256"])
    assert found[0] == found[2] != found[1]


def test_what_weights_started_from_is_named(tmp_path: Path) -> None:
    base = tmp_path / "a-checkpoint"
    base.mkdir()
    (base / "config.json").write_text("{}")
    plain = stores.recipe(stores.write(tmp_path / "notes", stores.NOTES))
    recipe = plain.model_copy(update={"model": plain.model.model_copy(update={"path": str(base)})})
    found = dossier.datasets(recipe, tmp_path / "store", trained(tmp_path / "store", recipe))["base"]
    assert (found["path"], found["files"], found["adapter_base_sha256"]) == ("a-checkpoint", 1, "abc")


def files(**changed: Any) -> dict[str, bytes]:
    recipe = {"name": "tiny", "train": {"max_steps": 5, "lr": 0.1}} | changed.get("recipe", {})
    data = {"sources": {"notes": {"license": "MIT", "read": changed.get("read", 10)}}, "rows": {}, "base": None}
    metrics = {"bits_per_byte": {"value": 1.5, "low": 1.4, "high": 1.6}} | changed.get("metrics", {})
    return {
        dossier.RECIPE: json.dumps(recipe).encode(),
        dossier.DATASETS: json.dumps(data).encode(),
        dossier.EVALUATION: json.dumps({"metrics": metrics}).encode(),
        dossier.LOCK: changed.get("lock", b"a==1\nb==2  # RECORD sha256:00\n"),
    }


def test_two_versions_are_compared() -> None:
    other = files(recipe={"train": {"max_steps": 9, "lr": 0.1}}, read=12, metrics={"chrf": {}}, lock=b"a==1\nc==3\n")
    found = dossier.differences(files(), other)
    assert found["recipe"] == ["train.max_steps: 5 → 9"]
    assert found["data"] == ["sources.notes.read: 10 → 12"]
    assert found["packages"] == {"b": ["2", ""], "c": ["", "3"]}
    assert found["metrics"]["chrf"] == [None, {}]
    assert found["missing"] == []


def test_a_version_is_like_itself_and_an_older_one_has_less() -> None:
    same = dossier.differences(files(), files())
    assert (same["recipe"], same["data"], same["packages"]) == ([], [], {})
    assert dossier.differences({}, files())["missing"] == list(dossier.COMPARED)
