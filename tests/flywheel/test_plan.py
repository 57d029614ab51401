from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flywheel import artifact, recipe_file
from flywheel.plan import PlannedStep, differences, plan
from tests.recipes import code_files, code_recipe, write


@dataclass(frozen=True)
class Registry:
    """A registry that says of every version what it is told to say."""

    uri: str = "sqlite:///somewhere"
    said: str = ""

    def fault(self, registered: Mapping[str, Any]) -> str:
        return self.said

    def rival(self, name: str, weights: str) -> str:
        return ""


REGISTRY = Registry()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A recipe whose every step has an artifact in `tmp_path/store`."""
    path = write(tmp_path / "r.yaml", code_recipe(code_files(tmp_path / "src", 2)))
    finish(path)
    return path


def planned(path: Path, *overrides: str, registry: Registry = REGISTRY) -> dict[str, PlannedStep]:
    recipe = recipe_file.load(path, overrides)
    return {s.name: s for s in plan(recipe, path.parent / "store", registry)}


def finish(path: Path, *overrides: str) -> None:
    """Put an artifact where each step would leave one."""
    store = path.parent / "store"
    for step in planned(path, *overrides).values():
        with artifact.locked(store, step.name, step.fingerprint) as building:
            (building.out / "data").write_text(step.name)
            target = artifact.location(store, step.name, step.fingerprint)
            artifact.commit(building, target=target, recipe="tiny-coder", ingredients=step.ingredients, summary={})


def misses(steps: dict[str, PlannedStep]) -> set[str]:
    return {name for name, step in steps.items() if not step.cached}


AFTER_TRAIN = {"train", "evaluate", "champion", "export", "gate", "register", "deploy"}


def test_nothing_built_misses_everywhere(tmp_path: Path) -> None:
    steps = planned(write(tmp_path / "r.yaml", code_recipe(code_files(tmp_path / "src", 1))))
    assert {s.reason for s in steps.values()} == {"never built"}
    assert "finetune" not in steps


def test_everything_built_hits_everywhere(built: Path) -> None:
    assert misses(planned(built)) == set()


def test_touched_files_hit(built: Path) -> None:
    for file in built.parent.glob("src/**/*.py"):
        os.utime(file, (1, 1))
    assert misses(planned(built)) == set()


def test_one_changed_byte_of_a_source_file_misses_everywhere_and_is_named(built: Path) -> None:
    file = built.parent / "src/module0/file0.py"
    file.write_text(file.read_text().replace("value", "valve", 1))
    steps = planned(built)
    assert misses(steps) == set(steps)
    assert "module0/file0.py changed" in steps["ingest"].reason


def test_a_recipe_key_misses_only_in_the_steps_that_read_it(built: Path) -> None:
    steps = planned(built, "train.max_steps=31")
    assert misses(steps) == AFTER_TRAIN
    assert steps["train"].reason == "recipe train.max_steps: 30 → 31"
    assert steps["evaluate"].reason == "train changed"
    assert misses(planned(built, "objective.thresholds={}")) == {"gate", "register", "deploy"}
    assert misses(planned(built, "deploy.smoke_prompt=x")) == {"deploy"}


def test_another_registry_does_not_hold_the_version(built: Path) -> None:
    assert misses(planned(built, registry=Registry("sqlite:///other"))) == {"register", "deploy"}


def test_one_flipped_byte_of_an_artifact_is_named(built: Path) -> None:
    damaged = built.parent / "store/train" / planned(built)["train"].fingerprint / "data"
    damaged.write_text("trajn")
    steps = planned(built)
    assert misses(steps) == {"train"}
    assert steps["train"].reason == "damaged: data does not match its sha256"


def test_a_changed_record_is_damage_too(built: Path) -> None:
    record = built.parent / "store/evaluate" / planned(built)["evaluate"].fingerprint / artifact.FILE
    record.write_text(record.read_text().replace('"summary": {}', '"summary": {"metrics": 1}'))
    steps = planned(built)
    assert misses(steps) == {"evaluate"}
    assert steps["evaluate"].reason == "damaged: artifact.json does not match its seal"


def test_a_version_that_the_registry_no_longer_holds_is_registered_and_deployed_again(built: Path) -> None:
    steps = planned(built, registry=Registry(said="registry: @champion is version 2"))
    assert misses(steps) == {"register", "deploy"}
    assert steps["register"].reason == "registry: @champion is version 2"
    assert steps["deploy"].reason == "register is made again"


def test_a_library_version_is_named(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "transformers" else real(name))
    steps = planned(built)
    assert "train" in misses(steps)
    assert "package transformers" in steps["train"].reason
    assert "ingest" not in misses(steps)


def test_going_back_to_earlier_values_hits_again(built: Path) -> None:
    finish(built, "train.max_steps=31")
    assert misses(planned(built)) == set()


def test_differences_put_the_nearest_cause_first_and_count_the_rest() -> None:
    old = {"parent:a": "1", "recipe:x": "1", "package:torch": "2.0", "module:m": "a", "file:f": "a"}
    new = {"parent:a": "2", "recipe:x": "2", "package:torch": "2.1", "module:m": "b"}
    assert differences(old, new, most=3) == "recipe x: 1 → 2, file f removed, module m changed, and 2 more"


def test_differences_name_the_item_of_a_list_that_changed() -> None:
    old = {"recipe:data.process": '["a", {"b": {"n": 1}}, "c"]', "recipe:data.sources": '[{"path": "a", "weight": 1}]'}
    new = {"recipe:data.process": '["a", {"b": {"n": 2}}]', "recipe:data.sources": '[{"path": "b", "weight": 1}, "x"]'}
    assert differences(old, new) == (
        'recipe data.process[1].b.n: 1 → 2, recipe data.process: "c" removed,'
        ' recipe data.sources[0].path: "a" → "b", recipe data.sources: "x" added'
    )
    other = differences({"recipe:x": '[{"k": {"n": 1}}]'}, {"recipe:x": '["l"]'})
    assert other == 'recipe x[0]: {"k": {"n": 1}} → "l"'
