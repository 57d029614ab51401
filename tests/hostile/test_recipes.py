"""Recipes that would take all memory or time are refused at once, and say why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flywheel.errors import RecipeError
from flywheel.recipe_file import load

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"b{n}: &b{n} [*{f'b{n - 1}' if n else 'a'}, *{f'b{n - 1}' if n else 'a'}]\n" for n in range(60)
)  # fmt: skip
RECIPES = {
    "laughs": LAUGHS,
    "merge": "a: &a {x: 1}\nb: {<<: *a}\n",
    "cycle": "&a [*a]",
    "deep_lists": "name: " + "[" * 50_000 + "]" * 50_000,
    "deep_mappings": "name: " + "{a: " * 20_000,
    "deep_blocks": "".join(" " * n + "a:\n" for n in range(400)),
    "deep_dashes": "name:\n" + "- " * 45_000 + "a",
    "anchors": "name: a\n" + "".join(f"k{n}: &a{n} 1\n" for n in range(5_000)),
    "unknown_keys": "".join(f"k{n}: 1\n" for n in range(9_000)),
    "python_call": "name: !!python/object/apply:os.system ['touch hostile7331']\n",
    "python_name": "name: !!python/name:os.system\n",
    "long_number": "seed: " + "9" * 90_000,
    "sexagesimal": "seed: " + "1:" * 45_000 + "1",
    "documents": "---\na: 1\n" * 9_000,
    "escapes": 'name: "' + "\\U0010FFFF" * 9_000 + '"',
    "nul": "name: \0",
    "keys_that_are_lists": "{[a]: 1, {b: c}: 2}",
    "longer_than_allowed": "#" * 2_000_000,
}
OVERRIDES = ["name=" + "[" * 50_000, "name=&a [*a]", "seed=&a [&b [1, 1], *b, *b]", "name=*x", "seed=" + "9" * 100_000,
             "a." * 50_000 + "b=1", "name=!!python/name:os.system", "data.sources.99999999999=1"]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_hostile_recipe_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPES[name])
    began = time.process_time()
    with pytest.raises(RecipeError) as error:
        load(path)
    assert time.process_time() - began < 10
    assert len(str(error.value)) < 20_000


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda override: override[:20])
def test_a_hostile_override_is_refused(tmp_path: Path, override: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\n")
    with pytest.raises(RecipeError) as error:
        load(path, [override])
    assert "Traceback" not in str(error.value)
