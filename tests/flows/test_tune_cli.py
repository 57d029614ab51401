"""`flywheel tune` as a user meets it, where no training is needed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import study, tune_screen
from flywheel import recipe_file
from flywheel.errors import TrainingError
from flywheel.recipe import Recipe
from flywheel.study import Study
from infra.settings import Settings
from tests.e2e.conftest import FLYWHEEL, environment
from tests.recipes import code_files, code_recipe, write

RATE = {"train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}


def recipe(root: Path, **tune: Any) -> Path:
    if not (root / "src").exists():
        code_files(root / "src", modules=2)
    return write(root / "r.yaml", code_recipe(root / "src", tune={"space": RATE, "n_trials": 3, **tune}))


def tune(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*FLYWHEEL, "tune", *arguments]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)


def searched(root: Path, *values: float) -> Study:
    """A study with these values; further trials fail."""
    loaded = recipe_file.load(recipe(root))
    found = Study(root / "study", loaded)
    for value in values:
        trial = found.claim()
        assert trial is not None
        trial.finish(value, "higher", metrics={"parse_rate": value}, seconds=1.0, heldout="a")
    while trial := found.claim():
        trial.fail("it does not fit", seconds=0.1)
    return found


def test_a_recipe_without_a_search_or_with_a_wrong_one_is_refused(tmp_path: Path) -> None:
    done = tune(tmp_path / "home", str(recipe(tmp_path)), "tune=null")
    assert done.returncode == 2
    assert "no section `tune`" in done.stderr
    done = tune(tmp_path / "home", str(recipe(tmp_path, space={"train.learning_rat": RATE["train.learning_rate"]})))
    assert done.returncode == 2
    assert "did you mean `learning_rate`?" in done.stderr


def test_the_report_ranks_the_trials_and_writes_a_recipe_that_runs(tmp_path: Path) -> None:
    told = study.report(searched(tmp_path, 0.2, 0.7), 1.0)
    assert [t["number"] for t in study.ranked(told)] == [1, 0, 2]
    assert told["best"]["number"] == 1
    assert json.loads(json.dumps(told)) == told
    best = recipe_file.load(Path(told["best_recipe"]))
    assert best.tune is None
    assert best.train.learning_rate == told["best"]["params"]["train.learning_rate"]
    assert "| 1 | 0.7 |" in study.markdown(told)


def test_a_recipe_is_written_sparsely_and_means_the_same(tmp_path: Path) -> None:
    told = study.report(searched(tmp_path, 0.2), 1.0)
    written = yaml.safe_load(Path(told["best_recipe"]).read_text())
    assert "resources" not in written
    whole: Recipe = recipe_file.load(tmp_path / "r.yaml")
    assert recipe_file.load(Path(told["best_recipe"])) == study.trial_recipe(whole, told["best"]["params"])


def test_a_search_in_which_all_trials_fail_says_why(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="it does not fit"):
        study.report(searched(tmp_path), 1.0)


def test_the_study_follows_what_is_measured_and_not_how_far_it_goes(tmp_path: Path) -> None:
    settings = Settings.load({"FLYWHEEL_HOME": str(tmp_path / "home")})

    def name(*overrides: str) -> str:
        return study.open_study(recipe_file.load(recipe(tmp_path), overrides), settings).directory.name

    assert name() == name("tune.n_trials=9", "tune.workers=2", "tune.timeout=60")
    others = ["tune.sampler=random", "seed=1", "train.max_steps=31", "objective.metric=parse_rate"]
    assert len({name(), *map(name, others)}) == 5
    (tmp_path / "src" / "module0" / "file0.py").write_text("x = 1\n")
    assert name() not in {name("tune.sampler=random"), None}


def test_the_screen_names_the_best_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_screen.out, "_width", 120)
    tune_screen.show({**study.report(searched(tmp_path, 0.2, 0.7), 1.0), "same_heldout_rows": False})
    text = capsys.readouterr().out
    assert "trial 1 has the best bits_per_byte, 0.7" in text
    assert "flywheel run" in text
    assert "it does not fit" in text
    assert "not all measured on the same ones" in text
