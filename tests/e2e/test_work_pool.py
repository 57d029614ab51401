"""Training in a work pool: a real server, a real worker on a machine with pretended GPUs, the command beside it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flywheel import artifact
from infra import pools, stack
from infra.prefect_server import Temporary
from infra.settings import Settings
from tests.e2e.conftest import FLYWHEEL, environment
from tests.fake_gpus import nvidia_smi, uuid
from tests.recipes import code_files, code_recipe, write

pytestmark = pytest.mark.slow


class Place:
    """A Prefect server with the deployments of prefect.yaml, and a worker of the pool `gpu`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.variables = {"FLYWHEEL_LEASE_SECONDS": "4", "PATH": self.path(2), "OMP_NUM_THREADS": "1"}
        self.settings = Settings.load({**environment(home), **self.variables})
        self.server = Temporary(self.settings)
        self.api = self.server.ready()
        stack.deploy(environment(home, **self.settings.environment(), PREFECT_API_URL=self.api))
        self.worker: subprocess.Popen[bytes] | None = None
        self.lifecycle: Lifecycle | None = None

    def path(self, gpus: int) -> str:
        return f"{nvidia_smi(self.home / f'with-{gpus}-gpus', gpus)}:{os.environ['PATH']}"

    def start(self, command: list[str], output: Path, **more: str) -> subprocess.Popen[bytes]:
        variables = environment(self.home, **{**self.variables, "PREFECT_API_URL": self.api, **more})
        with output.open("wb") as file:
            return subprocess.Popen([*FLYWHEEL, *command], env=variables, stdout=file, stderr=subprocess.STDOUT)

    def work(self, gpus: int = 2) -> None:
        """Be a machine with so many GPUs."""
        self.stop()
        self.worker = self.start(["worker", "gpu"], self.home / "worker.txt", PATH=self.path(gpus))

    def stop(self) -> None:
        """Kill the worker and what it has started, as when the machine loses its power."""
        if self.worker is not None:
            for process in [*psutil.Process(self.worker.pid).children(recursive=True), psutil.Process(self.worker.pid)]:
                process.kill()
            self.worker.wait()
            self.worker = None

    def run(self, *overrides: str) -> Lifecycle:
        self.lifecycle = Lifecycle(self, overrides)
        return self.lifecycle

    def training_runs(self) -> list[dict[str, Any]]:
        """Oldest first."""
        body = {"flows": {"name": {"any_": ["finetune"]}}, "sort": "EXPECTED_START_TIME_DESC"}
        response = httpx.post(f"{self.api}/flow_runs/filter", json=body, timeout=60)
        response.raise_for_status()
        return list(reversed(response.json()))


class Lifecycle:
    """`flywheel run`, going on."""

    def __init__(self, place: Place, overrides: tuple[str, ...]) -> None:
        self.output = place.home / "run.txt"
        command = ["run", str(place.home / "r.yaml"), *overrides, "--json"]
        self.process = place.start(command, self.output)

    def ended(self, *codes: int) -> str:
        """What it has said. Whether so little training passes the gate (0 or 3) is not what is tested here."""
        assert self.process.wait(250) in (codes or (0, 3)), self.output.read_text()
        return self.output.read_text()

    def until(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 120
        while not true():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def place(home: Path) -> Iterator[Place]:
    second = {"max_steps": 6, "process": [{"docstring_pairs": {"min_words": 2}}]}
    stages = {"finetune": {**code_recipe(Path())["train"], **second}}
    recipe = code_recipe(code_files(home / "src"), **stages, resources={"work_pool": "gpu", "accelerator": "cpu"})
    recipe["train"]["max_steps"] = 8
    write(home / "r.yaml", recipe)
    place = Place(home)
    yield place
    place.stop()
    if place.lifecycle is not None and place.lifecycle.process.poll() is None:
        place.lifecycle.process.kill()
        place.lifecycle.process.wait()
    place.server.stop()


@pytest.fixture(scope="module")
def report(place: Place) -> dict[str, Any]:
    place.work()
    text = place.run().ended()
    result: dict[str, Any] = json.loads((place.home / "last-run.json").read_text())
    assert "trains in the work pool gpu" in text
    return result


def test_both_stages_are_trained_by_the_worker_and_stand_in_the_report(report: dict[str, Any], place: Place) -> None:
    (run,) = place.training_runs()
    assert (run["state"]["type"], run["work_pool_name"]) == ("COMPLETED", "gpu")
    steps = {s["name"]: s for s in report["steps"]}
    for stage in ("train", "finetune"):
        assert (steps[stage]["cached"], steps[stage]["reason"]) == (False, "never built")
        assert steps[stage]["seconds"] > 0.5
        assert artifact.intact(artifact.location(place.settings.store, stage, steps[stage]["fingerprint"]))


def test_the_steps_are_children_of_the_lifecycle_in_mlflow(report: dict[str, Any], place: Place) -> None:
    with sqlite3.connect(place.home / "mlflow.db") as db:
        query = "select run_uuid from tags where key = 'mlflow.parentRunId' and value = ?"
        children = db.execute(query, (report["mlflow_run_id"],)).fetchall()
        unfinished = db.execute("select count(*) from runs where status != 'FINISHED'").fetchone()
    assert len(children) == len(report["steps"])
    assert unfinished == (0,)


def test_the_worker_says_what_it_has(report: dict[str, Any], place: Place) -> None:
    (advert,) = pools.adverts(place.api, "gpu")
    assert (advert.online, [d.uuid for d in advert.devices]) == (True, [uuid(0), uuid(1)])
    assert advert.memory > 0
    done = subprocess.run(
        [*FLYWHEEL, "doctor"], env=environment(place.home, PREFECT_API_URL=place.api), capture_output=True, text=True
    )
    assert "worker of gpu" in done.stdout
    assert "NVIDIA H200" in done.stdout


def test_where_nothing_is_to_be_trained_the_pool_is_not_asked(report: dict[str, Any], place: Place) -> None:
    before = len(place.training_runs())
    place.run("evaluate.num_samples=5").ended()
    assert len(place.training_runs()) == before


def test_a_run_whose_machine_dies_is_started_again_elsewhere(report: dict[str, Any], place: Place) -> None:
    going = place.run("train.max_steps=600", "train.save_steps=20")
    going.until(lambda: list(place.settings.store.glob("train/.*.work/*checkpoint*")))
    place.stop()
    place.work()
    text = going.ended()
    assert "no sign of life from its worker" in text
    dead, living = place.training_runs()[-2:]
    assert (dead["state"]["type"], living["state"]["type"]) == ("CRASHED", "COMPLETED")


def test_an_interrupted_lifecycle_ends_the_run(report: dict[str, Any], place: Place) -> None:
    going = place.run("train.max_steps=5000")
    going.until(lambda: "train:" in going.output.read_text() or place.training_runs()[-1]["state"]["type"] == "RUNNING")
    going.process.send_signal(signal.SIGINT)
    going.ended(130)
    deadline = time.monotonic() + 60
    while place.training_runs()[-1]["state"]["type"] != "CANCELLED":
        assert time.monotonic() < deadline, place.training_runs()[-1]["state"]
        time.sleep(0.5)


def test_a_worker_without_gpus_refuses_and_the_lifecycle_says_why(report: dict[str, Any], place: Place) -> None:
    place.work(gpus=0)
    text = place.run("train.max_steps=7", "resources.accelerator=cuda").ended(1)
    assert "resources.accelerator: cuda" in text
    assert "no GPU: nvidia-smi finds none" in text
    assert "Traceback" not in text
