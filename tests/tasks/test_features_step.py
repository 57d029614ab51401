"""The step `features` of a recipe that has the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel import artifact, recipe_file
from flywheel.features import table
from flywheel.features.extract import read_vectors
from flywheel.plan import PlannedStep, plan
from flywheel.record import Record, read_rows, write_rows
from infra.settings import Settings
from infra.tracking import lifecycle_run
from tasks.features import features
from tasks.shell import Job, Reference
from tests.flywheel.test_plan import REGISTRY
from tests.recipes import code_files, code_recipe, write


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny recipe whose rows are validated already."""
    home = tmp_path_factory.mktemp("features")
    config = {"type": "tfidf", "max_features": 64, "min_df": 1}
    path = write(home / "r.yaml", code_recipe(code_files(home / "src", 2), features=config))
    step, store = planned(path)["validate"], settings(path).store
    with artifact.locked(store, "validate", step.fingerprint) as building:
        for side, start in (("train", 0), ("heldout", 30)):
            rows = [
                Record(f"{n:016x}", text=f"def f{n}(): return g{n} + value_{n % 7}") for n in range(start, start + 30)
            ]
            write_rows(building.out / f"{side}.parquet", rows)
        target = artifact.location(store, "validate", step.fingerprint)
        artifact.commit(building, target=target, recipe="tiny-coder", ingredients=step.ingredients, summary={})
    return path


def settings(path: Path) -> Settings:
    return Settings.load({"FLYWHEEL_HOME": str(path.parent)})


def planned(path: Path, *overrides: str) -> dict[str, PlannedStep]:
    return {s.name: s for s in plan(recipe_file.load(path, overrides), settings(path).store, REGISTRY)}


@pytest.fixture(scope="module")
def made(recipe: Path) -> Reference:
    steps = planned(recipe)
    assert steps["features"].reason == "never built"
    with lifecycle_run(settings(recipe), "tiny", "0123456789", tags={}, params={}) as run:
        job = Job(recipe_file.load(recipe), steps["features"], settings(recipe), run.id)
        done: Reference = features.fn(job, {"step": "validate", "fingerprint": steps["validate"].fingerprint})
    return done


def test_the_step_keeps_a_vectoriser_that_gives_the_same_vectors_again(recipe: Path, made: Reference) -> None:
    assert made["summary"] == {"type": "tfidf", "width": 64, "rows": {"train": 30, "heldout": 30}}
    store = settings(recipe).store
    place = artifact.location(store, "features", made["fingerprint"])
    vectoriser = table.load(place / "vectoriser")
    for side in ("train", "heldout"):
        validated = artifact.location(store, "validate", planned(recipe)["validate"].fingerprint)
        rows = list(read_rows(validated / f"{side}.parquet"))
        ids, vectors = read_vectors(place / f"{side}.parquet")
        assert ids == [row.id for row in rows]
        assert np.array_equal(vectoriser.transform(rows), vectors)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_second_time_it_is_a_hit_and_a_change_of_it_makes_nothing_else_again(recipe: Path, made: Reference) -> None:
    assert planned(recipe)["features"].cached
    changed = planned(recipe, "features.max_features=32")
    assert changed["features"].reason == "recipe features.max_features: 64 → 32"
    assert changed["train"].fingerprint == planned(recipe)["train"].fingerprint


def test_a_recipe_without_the_key_has_no_such_step(recipe: Path) -> None:
    assert "features" not in planned(recipe, "features=null")
