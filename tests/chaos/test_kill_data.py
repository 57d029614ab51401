"""`kill -9` of a data run at seeded moments: the same command goes on from the finished shards, to the same rows.

Run by `make chaos`; about a minute for each moment on two cores.
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
from flywheel.shards import Cache
from tests.chaos.test_kill import left_over
from tests.e2e.conftest import FLYWHEEL, environment
from tests.recipes import write

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
SEEDS = range(5)
FILES, ROWS = 40, 1_500


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "corpus").mkdir()
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5_000)]
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 150))) for _ in range(FILES * ROWS * 9 // 10)]
    for number in range(FILES):
        lines = (json.dumps({"text": rng.choice(texts)}) + "\n" for _ in range(ROWS))
        (folder / "corpus" / f"{number:02}.jsonl").write_text("".join(lines))
    return write(
        folder / "r.yaml",
        {
            "name": "killed",
            "objective": {"metric": "bits_per_byte"},
            "data": {
                "sources": [{"type": "files", "path": str(folder / "corpus")}],
                "process": ["normalize_whitespace", {"length_filter": {"min": 50}}, "exact_dedup", "near_dedup"],
                "split": {"by": "id"},
                "validate": {"expectations": [{"expect_column_values_to_be_unique": {"column": "digest"}}]},
            },
            "model": {"modality": "text_causal"},
            "resources": {"workers": 2},
        },
    )


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, dict[str, Any], Any]:
    """Seconds, counts and rows of a run that nobody kills."""
    home = tmp_path_factory.mktemp("reference")
    started = time.monotonic()
    report = finish(recipe, home)
    return time.monotonic() - started, report, rows(home)


def command(recipe: Path) -> list[str]:
    return [*FLYWHEEL, "data", "check", str(recipe), "--json"]


def finish(recipe: Path, home: Path) -> dict[str, Any]:
    done = subprocess.run(
        command(recipe), env=environment(home), capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return {name: value for name, value in result.items() if name not in ("seconds", "steps")}


def rows(home: Path) -> dict[str, str]:
    """sha256 of every file of rows that the three steps made."""
    made = [a for step in ("ingest", "prepare", "validate") for a in artifact.existing(home / "store", step)]
    return {f"{a.step}/{name}": digest for a in made for name, digest in a.files.items() if "report" not in name}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_data_run_goes_on_to_the_same_rows(
    seed: int, recipe: Path, uninterrupted: tuple[float, dict[str, Any], Any], tmp_path: Path
) -> None:
    seconds, expected, expected_rows = uninterrupted
    moment = (seed + random.Random(seed).random()) / len(SEEDS) * seconds
    run = subprocess.Popen(
        command(recipe), env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(left_over(tmp_path), timeout=30)
    assert alive == []
    cache = Cache(tmp_path / "store" / ".shards")
    finished = {p: p.stat().st_ino for p in cache.root.iterdir() if not p.name.startswith(".")}
    assert all(cache.get(path.name) for path in finished)
    assert finish(recipe, tmp_path) == expected
    assert rows(tmp_path) == expected_rows
    assert all(path.stat().st_ino == number for path, number in finished.items())
    assert [p.name for p in cache.root.iterdir() if p.name.startswith(".")] == []
