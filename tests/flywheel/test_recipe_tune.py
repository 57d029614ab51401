"""What `tune.space` may say: every key and value is checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flywheel import recipe_file
from flywheel.errors import RecipeError
from flywheel.recipe import Recipe
from tests.recipes import code_recipe, write

RATE = {"low": 1e-4, "high": 1e-1, "log": True}


def load(tmp_path: Path, space: dict[str, Any], **more: Any) -> Recipe:
    return recipe_file.load(write(tmp_path / "r.yaml", code_recipe(tmp_path, tune={"space": space, **more})))


def refusal(tmp_path: Path, space: dict[str, Any], **more: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, space, **more)
    return str(caught.value)


def test_any_key_of_training_model_and_data_may_be_searched(tmp_path: Path) -> None:
    space = {
        "train.learning_rate": {"low": "1e-4", "high": "1e-1", "log": True},  # as YAML reads 1e-4: a text
        "train.optim": {"choices": ["adamw", "muon"]},
        "train.max_steps": {"low": 10, "high": 100, "step": 10},
        "data.process": {"choices": [["exact_dedup"], ["normalize_newlines", {"length_filter": {"min": 10}}]]},
        "data.split.heldout": {"low": 0.1, "high": 0.3},
        "model.hidden_size": {"low": 32, "high": 64, "step": 32},
        "seed": {"low": 0, "high": 9},
    }
    tune = load(tmp_path, space).tune
    assert tune is not None
    assert tune.space["train.learning_rate"].low == 1e-4  # type: ignore[union-attr]


def test_an_argument_of_an_operation_that_is_a_name_alone_may_be_searched(tmp_path: Path) -> None:
    recipe = code_recipe(tmp_path, tune={"space": {"data.process[1].near_dedup.threshold": {"low": 0.5, "high": 0.9}}})
    recipe["data"]["process"] = ["exact_dedup", "near_dedup"]
    path = write(tmp_path / "r.yaml", recipe)
    assert recipe_file.load(path).tune is not None
    changed = recipe_file.load(path, ["data.process[1].near_dedup.threshold=0.6"])
    assert changed.data.process == ("exact_dedup", {"near_dedup": {"threshold": 0.6}})


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("train.learning_rat", RATE, "did you mean `learning_rate`?"),
        ("train.learning_rate", {"low": 1e-4, "high": 10}, "less than or equal to 1"),
        ("train.max_steps", {"low": 1.0, "high": 9.5}, "a valid integer"),
        ("train.optim", {"choices": ["adamw", "sgd"]}, "'sgd'"),
        ("data.process[7].near_dedup.threshold", {"low": 0.5, "high": 0.9}, "no place for"),
        ("data.process[1].exact_dedup.sharp", {"choices": [1]}, "argument of exact_dedup that does not exist"),
        ("objective.metric", {"choices": ["parse_rate"]}, "does not change what is measured"),
        ("name", {"choices": ["other"]}, "does not change what is measured"),
        ("tune.n_trials", {"low": 1, "high": 2}, "tune.space.tune.n_trials"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_line(
    tmp_path: Path, key: str, values: dict[str, Any], told: str
) -> None:
    text = refusal(tmp_path, {key: values})
    assert told in text
    assert "r.yaml:49: " in text


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"low": 2e-3, "high": 1e-3}, "low must be less than high"),
        ({"low": 0, "high": 1, "log": True}, "log needs a low above 0"),
        ({"low": 1e-3, "high": 1e-2, "log": True, "step": 1e-3}, "goes without step"),
        ({"lo": 1e-3, "high": 1e-2}, "did you mean `low`?"),
        ({"choices": []}, "at least 1 item"),
    ],
)
def test_values_that_are_none_are_refused(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    assert told in refusal(tmp_path, {"train.learning_rate": values})


def test_the_metric_must_be_one_of_the_modality(tmp_path: Path) -> None:
    assert "did you mean `docstring_bleu`?" in refusal(tmp_path, {"train.learning_rate": RATE}, metric="bleu")


def test_a_key_stands_once_however_it_is_spelt(tmp_path: Path) -> None:
    twice = {"data.process[1]": {"choices": ["exact_dedup"]}, "data.process.1": {"choices": ["exact_dedup"]}}
    assert "the same key as `data.process[1]`" in refusal(tmp_path, twice)


def test_values_that_must_fit_together_are_left_to_the_trials(tmp_path: Path) -> None:
    heads = {"choices": [2, 8]}
    assert "hidden_size" in refusal(tmp_path, {"model.num_attention_heads": heads})
    both = {"model.num_attention_heads": heads, "model.hidden_size": {"choices": [32, 128]}}
    assert load(tmp_path, both).tune is not None
