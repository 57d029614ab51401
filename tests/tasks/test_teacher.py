"""The teacher of a distillation, by its name in the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel import artifact
from flywheel.recipe import Recipe
from flywheel.recipe_train import Distill
from infra import registry
from infra.errors import RegistryError
from infra.settings import Settings
from infra.tracking import lifecycle_run, prepare_database
from tasks import teacher


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings.load({"FLYWHEEL_HOME": str(tmp_path / "home")})
    (tmp_path / "home").mkdir()
    prepare_database(found.tracking_uri)
    return found


def recipe(named: str) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "student",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": "text_causal"},
            "train": {"method": "distill", "teacher": named},
        }
    )


def resolved(settings: Settings, named: str) -> str:
    stage = teacher.resolved(settings, recipe(named)).train
    assert isinstance(stage, Distill)
    return stage.teacher


def test_a_registered_model_is_its_weights(settings: Settings, tmp_path: Path) -> None:
    place = artifact.location(settings.store, "train", "f1")
    with artifact.locked(settings.store, "train", "f1") as building:
        (building.out / "model").mkdir()
        (building.out / "model" / "model.safetensors").write_bytes(b"weights")
        artifact.commit(building, target=place, recipe="wise", ingredients={}, summary={})
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    with lifecycle_run(settings, "wise", "0123", tags={}, params={}) as run:
        made = registry.Candidate("wise", bundle, run.id, "r1", "text", "# wise", {"lineage.train": "f1"})
        version = registry.register(settings, made)
    registry.set_alias(settings, "wise", "champion", version.version)
    assert resolved(settings, "wise@champion") == resolved(settings, "wise/1") == str(place / "model")
    (place / "model" / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(RegistryError, match="no whole artifact"):
        teacher.located(settings, "wise/1")


def test_what_is_not_registered(settings: Settings, tmp_path: Path) -> None:
    assert resolved(settings, str(tmp_path)) == str(tmp_path)
    assert resolved(settings, "somebody/a-model-7B") == "somebody/a-model-7B"
    with pytest.raises(RegistryError, match="nobody"):
        teacher.located(settings, "nobody@champion")
