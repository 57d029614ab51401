"""`flywheel up`: a run is started through Prefect's API, its model is served, and one interrupt ends everything."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from openai import OpenAI

from tests.e2e.conftest import FLYWHEEL, Run, environment, free_port
from tests.recipes import code_files, code_recipe, write


class Stack:
    """A running `flywheel up`."""

    def __init__(self, home: Path) -> None:
        self.ports = {name: free_port() for name in ("PREFECT", "MLFLOW", "SERVE")}
        variables = {f"FLYWHEEL_{name}_PORT": str(port) for name, port in self.ports.items()}
        self.output = home / "up.txt"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*FLYWHEEL, "up"], env=environment(home, **variables), stdout=output, stderr=subprocess.STDOUT
            )
        self.wait_for("Ctrl-C")

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.ports['PREFECT']}/api"

    def wait_for(self, words: str, seconds: int = 200) -> None:
        deadline = time.monotonic() + seconds
        while words not in (text := self.output.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.5)

    def post(self, path: str, body: Any) -> Any:
        response = httpx.post(f"{self.prefect}/{path}", json=body, timeout=60)
        response.raise_for_status()
        return response.json()

    def tasks(self, flow_run: str) -> dict[str, str]:
        """Task name → state name of a flow run."""
        runs = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        return {run["name"].rpartition("-")[0]: run["state"]["name"] for run in runs}


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Stack]:
    stack = Stack(home)
    yield stack
    if stack.process.poll() is None:
        stack.process.kill()
        stack.process.wait()


@pytest.fixture(scope="module")
def recipe(home: Path) -> Path:
    return write(home / "r.yaml", code_recipe(code_files(home / "src")))


@pytest.fixture(scope="module")
def flow_run(stack: Stack, recipe: Path) -> str:
    """A finished run that was started with POST /api/deployments/{id}/create_flow_run."""
    deployment = httpx.get(f"{stack.prefect}/deployments/name/lifecycle/lifecycle", timeout=60).json()
    started = stack.post(
        f"deployments/{deployment['id']}/create_flow_run",
        {"parameters": {"recipe": str(recipe), "overrides": ["train.max_steps=12"]}, "state": {"type": "SCHEDULED"}},
    )
    deadline = time.monotonic() + 250
    while time.monotonic() < deadline:
        run = httpx.get(f"{stack.prefect}/flow_runs/{started['id']}", timeout=60).json()
        if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            break
        time.sleep(1)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    return str(started["id"])


def test_the_form_is_the_schema(stack: Stack) -> None:
    deployment = httpx.get(f"{stack.prefect}/deployments/name/lifecycle/lifecycle", timeout=60).json()
    schema = deployment["parameter_openapi_schema"]
    help_text = schema["definitions"]["Sft"]["properties"]["max_steps"]["description"]
    assert help_text == "Number of optimizer steps."


def test_a_run_started_through_the_api_does_every_step(stack: Stack, flow_run: str, home: Path) -> None:
    states = stack.tasks(flow_run)
    assert set(states.values()) == {"Completed"}
    assert len(states) == 10
    assert json.loads((home / "last-run.json").read_text())["flow_run_id"] == flow_run


def test_the_run_leaves_artifacts_in_the_ui(stack: Stack, flow_run: str) -> None:
    artifacts = stack.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
    assert {"lifecycle", "mlflow-run", "gate", "export"} <= {a["key"] for a in artifacts}


def test_the_champion_is_served_to_an_openai_client(stack: Stack, flow_run: str) -> None:
    stack.wait_for("tiny-coder 1")
    client = OpenAI(base_url=f"http://127.0.0.1:{stack.ports['SERVE']}/v1", api_key="none", max_retries=0)
    assert [m.id for m in client.models.list()] == ["tiny-coder"]
    assert client.completions.create(model="tiny-coder", prompt="def f(", max_tokens=4).usage is not None


def test_mlflow_shows_the_model(stack: Stack, flow_run: str) -> None:
    url = f"http://127.0.0.1:{stack.ports['MLFLOW']}/api/2.0/mlflow/registered-models/alias"
    answer = httpx.get(url, params={"name": "tiny-coder", "alias": "champion"}, timeout=60).json()
    assert answer["model_version"]["version"] == "1"


def test_a_run_from_the_command_line_is_recorded_there_with_its_steps_cached(
    stack: Stack, flow_run: str, flywheel: Run, recipe: Path
) -> None:
    done = flywheel("run", str(recipe), "train.max_steps=12", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert all(s["cached"] for s in report["steps"])
    assert set(stack.tasks(report["flow_run_id"]).values()) == {"Cached"}


def test_one_interrupt_stops_everything(stack: Stack, flow_run: str) -> None:
    family = psutil.Process(stack.process.pid).children(recursive=True)
    assert len(family) >= 4
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
