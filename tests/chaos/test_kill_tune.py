"""`kill -9` of a search: the same command goes on, takes the trial over that was under way, and ends the same.

Run by `make chaos`; about two minutes for each moment on two cores.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos.test_kill import left_over
from tests.e2e.conftest import FLYWHEEL, environment
from tests.recipes import code_files, code_recipe, write

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SEEDS = range(4)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    space = {"train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    whole = code_recipe(code_files(folder / "src"), tune={"space": space, "n_trials": 4})
    return write(folder / "r.yaml", {**whole, "train": {**whole["train"], "max_steps": 90, "save_steps": 5}})


def command(recipe: Path) -> list[str]:
    return [*FLYWHEEL, "tune", str(recipe), "--json"]


def finish(recipe: Path, home: Path) -> dict[str, Any]:
    done = subprocess.run(
        command(recipe), env=environment(home), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def trials(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(t["number"], t["state"], t["params"], t["value"], t["reason"]) for t in report["trials"]]


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, dict[str, Any]]:
    """Seconds and report of a search that nobody kills."""
    home = tmp_path_factory.mktemp("reference")
    started = time.monotonic()
    report = finish(recipe, home)
    return time.monotonic() - started, report


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_search_goes_on_to_the_same_trials(
    seed: int, recipe: Path, uninterrupted: tuple[float, dict[str, Any]], tmp_path: Path
) -> None:
    seconds, expected = uninterrupted
    moment = (seed + random.Random(seed).random()) / len(SEEDS) * seconds
    run = subprocess.Popen(
        command(recipe), env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(left_over(tmp_path), timeout=30)
    assert alive == []
    assert trials(finish(recipe, tmp_path)) == trials(expected)
