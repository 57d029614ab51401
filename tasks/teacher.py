"""The teacher of a distillation: a registered model becomes the directory of its weights before training starts."""

from __future__ import annotations

import re
from pathlib import Path

from flywheel import artifact
from flywheel.recipe import Recipe
from flywheel.recipe_train import Distill, Train
from infra import registry
from infra.errors import RegistryError
from infra.settings import Settings

STAGES = ("finetune", "train")
"""Steps that leave weights, the last one first."""
LINEAGE = "lineage."
REGISTERED = re.compile(r"(models:/)?[^/@]+(@[^/@]+|/\d+)")


def resolved(settings: Settings, recipe: Recipe) -> Recipe:
    """The recipe with the directory of a teacher that it names by `NAME@alias` or `NAME/version`. Raises RegistryError.

    The directory's name holds the fingerprint of what made the weights, so an alias that moves makes another recipe.
    """
    changed = {name: _taught(settings, getattr(recipe, name)) for name in STAGES}
    return recipe.model_copy(update={name: stage for name, stage in changed.items() if stage is not None})


def _taught(settings: Settings, stage: Train | None) -> Train | None:
    if not isinstance(stage, Distill):
        return stage
    return stage.model_copy(update={"teacher": located(settings, stage.teacher)})


def located(settings: Settings, reference: str) -> str:
    """The directory of the weights that a reference stands for; a directory and a hub id stand for themselves."""
    if Path(reference).is_dir() or not REGISTERED.fullmatch(reference):
        return reference
    version = registry.resolve(settings, reference)
    for step in STAGES:
        mark = version.tags.get(f"{LINEAGE}{step}")
        place = artifact.location(settings.store, step, mark) if mark else None
        if place is not None and artifact.intact(place):
            return str(place / "model")
        if place is not None:
            break  # the stage before it is another model
    raise RegistryError(
        f"weights of {version.name} version {version.version}",
        found=f"no whole artifact of them in {settings.store}",
        expected="the store in which the version was made",
        remedy="run this where the model was trained, or give the directory of a checkpoint as teacher",
    )
