"""Shards that are made side by side: what is finished stays, what is not is never seen."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import WorkerError
from flywheel.shards import Cache, Writer
from flywheel.workers import Pool, Request

HERE = "test_shards"


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def make(argument: dict[str, Any]) -> dict[str, Any]:
    """Half a shard, and the other half unless this is where workers are killed."""
    deaths = Path(argument["deaths"])
    with Writer(Path(argument["out"])):
        if int(deaths.read_text() or 0) > 0 and argument["number"] == 2:
            deaths.write_text(str(int(deaths.read_text()) - 1))
            os.kill(os.getpid(), signal.SIGKILL)
    return {"number": argument["number"]}


def numbers(cache: Cache, deaths: Path) -> list[int]:
    requests = [(f"{n:032}", Request(f"{HERE}:make", {"number": n, "deaths": str(deaths)})) for n in range(5)]
    with Pool(2) as pool:
        return [shard.facts["number"] for shard in cache.make(requests, pool, "numbers")]


@pytest.fixture
def deaths(tmp_path: Path) -> Path:
    """How often the worker on the third shard is still to be killed."""
    path = tmp_path / "deaths"
    path.write_text("0")
    return path


def test_a_worker_that_is_killed_is_replaced_and_its_shard_made_again(tmp_path: Path, deaths: Path) -> None:
    deaths.write_text("1")
    assert numbers(Cache(tmp_path / "shards"), deaths) == [0, 1, 2, 3, 4]


def test_a_run_whose_workers_are_killed_again_and_again_fails_and_goes_on_later(tmp_path: Path, deaths: Path) -> None:
    cache = Cache(tmp_path / "shards")
    deaths.write_text("2")
    with pytest.raises(WorkerError, match=r"lost: a worker ended with code -9(.|\n)*the same command goes on"):
        numbers(cache, deaths)
    before = {p.name: p.stat().st_mtime_ns for p in cache.root.iterdir()}
    assert set(before) == {f"{n:032}" for n in (0, 1)}
    assert numbers(cache, deaths) == [0, 1, 2, 3, 4]
    assert {name: (cache.root / name).stat().st_mtime_ns for name in before} == before


def test_a_damaged_shard_is_made_again(tmp_path: Path, deaths: Path) -> None:
    cache = Cache(tmp_path / "shards")
    numbers(cache, deaths)
    (cache.root / f"{3:032}" / "left.jsonl").write_text("not what was written")
    assert cache.get(f"{3:032}") is None
    assert numbers(cache, deaths) == [0, 1, 2, 3, 4]
    assert cache.get(f"{3:032}") is not None


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, to mount a small file system")
def test_a_full_disk_stops_the_run_and_quarantines_nothing(tmp_path: Path) -> None:
    place, corpus = tmp_path / "disk", tmp_path / "corpus"
    place.mkdir()
    corpus.mkdir()
    rng = random.Random(0)
    for number in range(4):
        said = (json.dumps({"text": rng.randbytes(700).hex()}) + "\n" for _ in range(2_000))
        (corpus / f"{number}.jsonl").write_text("".join(said))
    command = ["unshare", "-rm", sys.executable, str(Path(__file__).with_name("full_disk.py")), str(place), str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no file systems may be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    *error, left, counts = done.stdout.splitlines()
    assert "disk_full" in "".join(error)
    assert "free some space; the same command goes on" in "".join(error)
    assert not any(name.startswith(".") for name in json.loads(left.replace("'", '"')))
    found = json.loads(counts.replace("'", '"'))
    assert sum(c["kept"] for c in found) == 8_000
    assert not any(c["dropped"] or c["quarantined"] for c in found)
