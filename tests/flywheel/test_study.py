"""A study survives the death of whoever works at it, at any moment."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import RecipeError
from flywheel.recipe import Recipe
from flywheel.study import Claim, Study
from flywheel.tuning import Outcome, Pruned
from tests.recipes import code_recipe

SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "train.optim": {"choices": ["adamw", "muon"]},
}


def recipe(**more: Any) -> Recipe:
    tune = {"space": SPACE, "n_trials": 8, "pruner": "none", **more}
    whole = code_recipe(Path("src"), tune=tune)
    return Recipe.model_validate({**whole, "train": {**whole["train"], "max_steps": 90}})


def quality(trial: Claim) -> float:
    rate, optim = trial.params["train.learning_rate"], trial.params["train.optim"]
    return abs(math.log10(rate) + 2) + (0.5 if optim == "muon" else 0.0)


def work(study: Study, most: int = 1000) -> list[Outcome]:
    """Measure a formula."""
    while most and (trial := study.claim()) is not None:
        most -= 1
        try:
            for step in range(10, 90, 10):
                trial.report(step, 3 - step / 90 + quality(trial))
        except Pruned as why:
            trial.prune(why.found)
        else:
            trial.finish(quality(trial), "lower")
    return study.outcomes()


def seen(outcomes: list[Outcome]) -> list[tuple[Any, ...]]:
    return [(o.state, dict(o.params), o.value) for o in outcomes]


def test_a_recipe_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no section `tune`"):
        Study(tmp_path / "s", Recipe.model_validate(code_recipe(tmp_path)))


def test_the_first_trial_is_the_recipe_as_it_is_written(tmp_path: Path) -> None:
    trial = Study(tmp_path / "s", recipe()).claim()
    assert trial is not None
    assert trial.params == {"train.learning_rate": 0.003, "train.optim": "adamw"}


def test_the_same_seed_draws_the_same_trials_also_when_it_was_interrupted(tmp_path: Path) -> None:
    whole = work(Study(tmp_path / "a", recipe(n_trials=14)))
    for _ in range(7):
        work(Study(tmp_path / "b", recipe(n_trials=14)), most=2)
    assert seen(work(Study(tmp_path / "b", recipe(n_trials=14)))) == seen(whole)
    assert len(whole) == 14
    other = recipe(n_trials=14).model_copy(update={"seed": 1})
    assert seen(work(Study(tmp_path / "c", other)))[1:] != seen(whole)[1:]


def test_a_larger_number_goes_on(tmp_path: Path) -> None:
    before = work(Study(tmp_path / "s", recipe()))
    study = Study(tmp_path / "s", recipe(n_trials=10))
    assert not study.complete()
    assert seen(work(study))[:8] == seen(before)
    assert study.complete()


def test_the_search_finds_what_is_better_and_says_which_key_mattered(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", recipe(n_trials=16))
    assert study.importance() == {}
    assert min(o.cost for o in work(study)) < 0.2
    shares = study.importance()
    assert next(iter(shares)) == "train.learning_rate"
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("pruner", ["asha", "hyperband"])
def test_trials_that_fall_behind_are_stopped(tmp_path: Path, pruner: str) -> None:
    outcomes = work(Study(tmp_path / "s", recipe(n_trials=20, pruner=pruner)))
    stopped = [o for o in outcomes if o.state == "pruned"]
    assert stopped
    assert all("at step" in o.reason for o in stopped)
    assert min((o for o in outcomes if o.value is not None), key=lambda o: o.cost).state == "finished"


def test_two_processes_get_different_trials_and_a_left_one_is_taken_over(tmp_path: Path) -> None:
    one, two = Study(tmp_path / "s", recipe()), Study(tmp_path / "s", recipe())
    first, second = one.claim(), two.claim()
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    first.report(10, 2.5)
    first.leave()
    again = two.claim()
    assert again is not None
    assert (again.number, again.params) == (0, first.params)
    again.report(10, 99.0)  # its training tells again what it told before: that stays
    assert two.reported(0) == {10: 2.5}


def test_a_value_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", recipe())
    trial = study.claim()
    assert trial is not None
    trial.finish(math.nan, "lower")
    assert [(o.state, o.reason) for o in study.outcomes()] == [("failed", "the metric is nan")]


def killed_at_write(number: int, directory: Path) -> int:
    """The signal that ended a process which worked until it was to make so many writes durable."""
    child = os.fork()
    if child == 0:
        left, fsync = iter(range(number)), os.fsync

        def dying(handle: int) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(handle)

        os.fsync = dying  # type: ignore[assignment]
        work(Study(directory, recipe()))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_any_write_it_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    whole = work(Study(tmp_path / "a", recipe()))
    for number in (0, 1, 3, 4, 5, 7, 12):
        assert killed_at_write(number, tmp_path / "b") == -signal.SIGKILL
    assert seen(work(Study(tmp_path / "b", recipe()))) == seen(whole)


@pytest.mark.parametrize("torn", [b'{"op_code":4,"wor', b"x" * 200_000, b"\x00"])
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    before = work(Study(tmp_path / "s", recipe()), most=3)
    with (tmp_path / "s" / "journal.log").open("ab") as journal:
        journal.write(torn)
    after = work(Study(tmp_path / "s", recipe()))
    assert len(after) == 8
    assert seen(after)[:3] == seen(before)
