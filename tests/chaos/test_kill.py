"""`kill -9` of a run at ten seeded moments: the same command continues, and ends with the same weights.

Run by `make chaos`; about a minute and a half for each moment on two cores.
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

from flywheel import artifact
from tests.e2e.conftest import FLYWHEEL, environment
from tests.e2e.test_run import finetune
from tests.recipes import code_files, code_recipe, write

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SEEDS = range(10)
FAST_SAVES = {"max_steps": 120, "save_steps": 10}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    base = code_recipe(code_files(folder / "src"))
    stages = {"train": {**base["train"], **FAST_SAVES}, "finetune": {**finetune(), **FAST_SAVES}, "peft": {"r": 4}}
    return write(folder / "r.yaml", {**base, **stages})


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, str]:
    """Seconds and weights of a run that nobody kills."""
    home = tmp_path_factory.mktemp("reference")
    started = time.monotonic()
    report = finish(recipe, home)
    return time.monotonic() - started, weights(home, report)


def command(recipe: Path) -> list[str]:
    return [*FLYWHEEL, "run", str(recipe), "--json"]


def finish(recipe: Path, home: Path) -> dict[str, Any]:
    done = subprocess.run(
        command(recipe), env=environment(home), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def weights(home: Path, report: dict[str, Any]) -> str:
    mark = next(s["fingerprint"] for s in report["steps"] if s["name"] == "finetune")
    return artifact.load(artifact.location(home / "store", "finetune", mark)).files["model/model.safetensors"]


def left_over(home: Path) -> list[psutil.Process]:
    """Processes that still work for this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLYWHEEL_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_run_continues_to_the_same_weights(
    seed: int, recipe: Path, uninterrupted: tuple[float, str], tmp_path: Path
) -> None:
    seconds, expected = uninterrupted
    moment = random.Random(seed).uniform(0.05, 0.95) * seconds
    run = subprocess.Popen(
        command(recipe), env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    run.kill()
    run.wait()
    finished = {p.parent.parent.name for p in (tmp_path / "store").glob(f"*/*/{artifact.FILE}")}
    _, alive = psutil.wait_procs(left_over(tmp_path), timeout=30)
    assert alive == []
    report = finish(recipe, tmp_path)
    assert {s["name"] for s in report["steps"] if s["cached"]} == finished
    assert weights(tmp_path, report) == expected
