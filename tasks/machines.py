"""The machines that train a stage: GPUs are leased on this one, and on the others of `resources.num_nodes`."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from httpx import HTTPError
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from flywheel import launch
from flywheel.progress import Progress
from flywheel.recipe import Recipe
from infra import beats, devices
from infra.errors import InfraError, SettingsError
from infra.prefect_server import free_port
from infra.settings import Settings

LOOK_SECONDS, TELL_SECONDS = 10.0, 30.0
END_SECONDS = 60.0
"""For the other machines to end by themselves once the first one has."""


@dataclass(frozen=True)
class Machines:
    """What a stage is trained on."""

    devices: launch.Devices
    check: Callable[[], None]
    """Raises InfraError where the devices or another machine are lost."""

    def watched(self, progress: Progress) -> Progress:
        """The same listener, which also checks."""

        def listen(done: int, total: int, figures: Mapping[str, float]) -> None:
            self.check()
            progress(done, total, figures)

        return listen


@contextmanager
def gathered(settings: Settings, job: launch.Job) -> Iterator[Machines]:
    """Hold the devices that a recipe asks for while the context lasts, here and on further machines.

    Waits while others hold them. Raises SettingsError at once where this machine does not have them.
    """
    resources = job.recipe.resources
    holder = f"{job.recipe.name} {job.stage} ({runtime.flow_run.name or 'no flow'})"
    with devices.lease(settings, resources.accelerator, resources.accelerators, holder, _tell) as lease:
        here = launch.Devices(lease.visible, resources.accelerators)
        if resources.num_nodes == 1:
            yield Machines(here, lease.check)
            return
        endpoint = f"{_address()}:{free_port()}"
        with _others(settings, job, endpoint) as others:
            all_nodes = launch.Devices(here.visible, here.processes, resources.num_nodes, 0, endpoint)

            def check() -> None:
                lease.check()
                others.check()

            yield Machines(all_nodes, check)


def joined(
    settings: Settings,
    recipe: Recipe,
    stage: Literal["train", "finetune"],
    paths: Mapping[str, Path | None],
    place: tuple[int, str],
) -> None:
    """Be machine `place[0]` of a training that meets at `place[1]`, until the first machine has ended it."""
    resources, (rank, endpoint) = recipe.resources, place
    found = {name: path for name, path in paths.items() if path is not None}
    job = launch.Job(recipe, stage, start=paths["start"], **{k: v for k, v in found.items() if k != "start"})
    holder = f"{recipe.name} {stage}, machine {rank + 1}"
    with devices.lease(settings, resources.accelerator, resources.accelerators, holder, _tell) as lease:
        here = launch.Devices(lease.visible, resources.accelerators, resources.num_nodes, rank, endpoint)
        machines = Machines(here, lease.check)
        with beats.beating(settings, str(runtime.flow_run.id)):  # which tells the first machine that this one is ready
            launch.launch(job, here, machines.watched(lambda done, total, figures: None))


class _Others:
    """The runs on the other machines."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.looked = settings, time.monotonic()
        self.runs: list[FlowRun] = []
        self.watches: list[beats.Watch] = []

    def start(self, deployment: str, parameters: dict[str, Any]) -> None:
        name = f"{runtime.flow_run.name}-{parameters['node_rank'] + 1}"
        run = run_deployment(deployment, parameters=parameters, timeout=0, flow_run_name=name, as_subflow=False)
        assert isinstance(run, FlowRun)  # in a synchronous task Prefect's dual functions return their value
        self.runs.append(run)
        self.watches.append(beats.Watch(self.settings, str(run.id)))

    def gather(self) -> None:
        """Wait until each has its devices."""
        told = time.monotonic()
        while not all(watch.file.exists() for watch in self.watches):
            self._look()
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                ready = 1 + sum(watch.file.exists() for watch in self.watches)
                _tell(f"{ready} of {1 + len(self.runs)} machines are ready")
            time.sleep(1)

    def check(self) -> None:
        """Raises InfraError where one of them has failed; asks now and then."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self._look()

    def end(self, *, seconds: float) -> None:
        """Cancel those that do not end by themselves."""
        deadline = time.monotonic() + seconds
        with suppress(HTTPError), get_client(sync_client=True) as client:
            while self.runs:
                states = [client.read_flow_run(run.id).state for run in self.runs]
                self.runs = [r for r, s in zip(self.runs, states, strict=True) if s is None or not s.is_final()]
                if time.monotonic() >= deadline:
                    break
                time.sleep(1)
            for run in self.runs:
                client.set_flow_run_state(run.id, Cancelling(message="the first machine has ended the training"))

    def _look(self) -> None:
        self.looked = time.monotonic()
        with suppress(HTTPError), get_client(sync_client=True) as client:  # a server that is away says nothing
            for number, run in enumerate(self.runs, 2):
                state = client.read_flow_run(run.id).state
                if state is not None and state.is_final() and state.type is not StateType.COMPLETED:
                    raise InfraError(f"machine {number} of the training, run {run.name}", found=state.message or "")


@contextmanager
def _others(settings: Settings, job: launch.Job, endpoint: str) -> Iterator[_Others]:
    """Runs on the other machines, each with its devices."""
    resources = job.recipe.resources
    if resources.work_pool is None:
        raise SettingsError(
            f"resources.num_nodes: {resources.num_nodes}",
            found="no resources.work_pool",
            expected="a work pool whose workers are the further machines",
            remedy="add `work_pool: gpu` to resources, and start `flywheel worker gpu` on each machine",
        )
    paths = {"rows": job.rows, "start": job.start, "out": job.out, "work": job.work, "kept": job.kept}
    common: dict[str, Any] = {
        "recipe": job.recipe.model_dump(mode="json", by_alias=True),
        "stage": job.stage,
        "paths": {name: str(path) if path else None for name, path in paths.items()},
        "endpoint": endpoint,
    }
    others = _Others(settings)
    try:
        for rank in range(1, resources.num_nodes):
            others.start(f"finetune-node/{resources.work_pool}", {**common, "node_rank": rank})
        others.gather()
        yield others
    except BaseException:
        others.end(seconds=0)
        raise
    others.end(seconds=END_SECONDS)


def _address() -> str:
    """This machine's address on the way to the Prefect server, which is how the other machines reach it too."""
    url = urlsplit(PREFECT_API_URL.value() or "http://127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing
        probe.connect((url.hostname or "127.0.0.1", url.port or 80))
        return str(probe.getsockname()[0])


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
