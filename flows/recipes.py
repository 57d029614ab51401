"""Recipes as the flows take them: checked against everything that can be known before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flywheel import recipe_file
from flywheel.recipe import Recipe
from infra import expectations


def resolve(recipe: Recipe | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file, or a written-out recipe, with overrides. Raises RecipeError or ExpectationError."""
    resolved = recipe_file.resolve(recipe, overrides)
    expectations.check_names(resolved.data.validate_.expectations)
    return resolved
