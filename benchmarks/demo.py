"""The demo model that `make run` trained here, for benchmarks that need a model that has learnt something."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flywheel import artifact, recipe_file
from flywheel.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Demo:
    """The recipe and what its run left in the store."""

    recipe: Recipe
    rows: Path
    """Directory of validated rows."""
    base: Path
    """The model after the first stage."""
    model: Path
    """The model after the last one."""


def demo(store: Path, *overrides: str) -> Demo:
    """The newest run of recipes/stdlib-coder.yaml in a store; overrides change what is asked, not what was trained."""
    recipe = recipe_file.load(ROOT / "recipes" / "stdlib-coder.yaml", overrides)
    found = {}
    for step in ("validate", "train", "finetune"):
        made = [a for a in artifact.existing(store, step) if a.recipe == recipe.name]
        if not made:
            raise SystemExit(f"{store} holds no {step} of {recipe.name}: run `make run` first")
        found[step] = made[0].path
    return Demo(recipe, found["validate"], found["train"] / "model", found["finetune"] / "model")
