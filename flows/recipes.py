"""Recipes as the flows take them: checked against everything that can be known before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flywheel import recipe_file
from flywheel.recipe import Recipe
from flywheel.recipe_train import Distill
from infra import expectations
from infra.settings import Settings
from tasks import teacher


def resolve(recipe: Recipe | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file, or a written-out recipe, with overrides; a registered teacher becomes the place of its weights.

    Raises RecipeError, ExpectationError, or RegistryError for a teacher that is not there.
    """
    resolved = recipe_file.resolve(recipe, overrides)
    expectations.check_names(resolved.data.validate_.expectations)
    if any(isinstance(stage, Distill) for stage in (resolved.train, resolved.finetune)):
        return teacher.resolved(Settings.load(), resolved)
    return resolved
