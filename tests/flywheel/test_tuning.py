"""Spaces, the draws from them, and what may be pruned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel import tuning
from flywheel.recipe import Recipe
from flywheel.tuning import Outcome
from tests.recipes import code_recipe

PLAIN = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(PLAIN | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


def recipe(space: dict[str, Any], **more: Any) -> Recipe:
    tune = {"space": space, **more}
    return Recipe.model_validate(code_recipe(Path("src"), tune=tune))


@given(JSON)
@settings(deadline=None, max_examples=50)
def test_values_survive_as_overrides(value: Any) -> None:
    (line,) = tuning.overrides({"a.b": value})
    key, _, text = line.partition("=")
    assert key == "a.b"
    assert yaml.safe_load(text) == value


def test_choices_of_any_kind_are_drawn_and_read_back() -> None:
    choices = ["a", 1, True, None, 0.5, [1, {"b": []}]]
    wanted = recipe({"train.lr_scheduler_type": {"choices": choices}}).tune
    assert wanted is not None
    (drawn,) = tuning.distributions(wanted.space).values()
    labels = drawn.choices  # type: ignore[attr-defined]
    assert [
        tuning.decoded(wanted.space, {"train.lr_scheduler_type": c})["train.lr_scheduler_type"] for c in labels
    ] == choices


def test_numbers_are_whole_where_both_ends_are() -> None:
    wanted = recipe({"train.max_steps": {"low": 10, "high": 20}, "train.weight_decay": {"low": 0, "high": 0.5}}).tune
    assert wanted is not None
    kinds = {key: type(d).__name__ for key, d in tuning.distributions(wanted.space).items()}
    assert kinds == {"train.max_steps": "IntDistribution", "train.weight_decay": "FloatDistribution"}


def test_the_recipe_as_written_is_a_point_of_the_space_or_not() -> None:
    rate: dict[str, Any] = {"low": 1e-4, "high": 1e-2, "log": True}
    inside = recipe({"train.learning_rate": rate, "train.optim": {"choices": ["muon", "adamw"]}})
    assert inside.tune is not None
    assert tuning.written(inside, inside.tune.space) == {"train.learning_rate": 3e-3, "train.optim": '"adamw"'}
    outside = recipe({"train.learning_rate": rate, "train.optim": {"choices": ["muon"]}})
    assert outside.tune is not None
    assert tuning.written(outside, outside.tune.space) is None


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("train.learning_rate", ""),
        ("model.hidden_size", ""),
        ("train.per_device_train_batch_size", "the training loss is not comparable"),
        ("train.max_length", "the training loss is not comparable"),
        ("data.process[1]", "data.process[1]"),
        ("model.tokenizer.vocab_size", "model.tokenizer.vocab_size"),
        ("seed", "seed"),
    ],
)
def test_trials_are_pruned_only_where_their_losses_are_comparable(key: str, told: str) -> None:
    wanted = recipe({key: {"choices": [1]}})
    assert wanted.tune is not None
    reason = tuning.unprunable(wanted, wanted.tune)
    assert told in reason
    assert type(tuning.pruner(wanted, wanted.tune)).__name__ == ("NopPruner" if told else "SuccessiveHalvingPruner")


def test_losses_on_heldout_rows_are_comparable_between_sizes_of_batches() -> None:
    wanted = recipe({"train.per_device_train_batch_size": {"low": 4, "high": 16}})
    assert wanted.tune is not None
    assert "set eval_steps" in tuning.unprunable(wanted, wanted.tune)
    measured = wanted.model_copy(update={"train": wanted.train.model_copy(update={"eval_steps": 10})})
    assert tuning.unprunable(measured, wanted.tune) == ""
    assert "data" in tuning.unprunable(
        measured, recipe({"data.split.heldout": {"low": 0.1, "high": 0.2}}).tune or wanted.tune
    )


def test_the_best_trial_follows_the_direction_of_the_metric() -> None:
    values = [("finished", 0.5), ("finished", 0.9), ("pruned", None), ("finished", 0.9)]
    for better, number in (("higher", 1), ("lower", 0)):
        found = tuning.best([Outcome(n, s, {}, v, better) for n, (s, v) in enumerate(values)])  # type: ignore[arg-type]
        assert found is not None
        assert found.number == number
    assert tuning.best([Outcome(0, "failed", {})]) is None


def test_optuna_is_imported_only_to_search() -> None:
    code = "import flywheel.study, flows.cli, sys; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
