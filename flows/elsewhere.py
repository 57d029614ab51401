"""Training in a work pool, seen from the lifecycle: start or find the run there, follow it, and end it where it must.

A run is found again by the fingerprints of what it trains, so a lifecycle that is started anew follows the run that
goes on, and never starts a second one beside it. A run whose worker has died is started again, and goes on from its
last checkpoint.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from httpx import HTTPError
from prefect import get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from flows.wheel import Wheel
from flywheel import artifact, fingerprint
from flywheel.errors import ArtifactError
from flywheel.plan import PlannedStep
from infra import pools
from infra.beats import Watch
from infra.errors import InfraError, SettingsError
from infra.prefect_server import running
from infra.settings import Settings
from tasks.shell import Reference

STAGES = ("train", "finetune")
RESTARTS = 3
"""After deaths of a worker, not after failures of the training itself."""
POLL_SECONDS, TELL_SECONDS = 2.0, 30.0
PATIENCE_SECONDS = 600.0
"""A server that is away for less does no harm."""
SHARED_SECONDS = 60.0
"""A network file system shows a new directory that late."""


def train(wheel: Wheel, rows: Reference) -> None:
    """Where the recipe names a work pool, let its workers make what is missing of the stages of training.

    Raises InfraError with the worker's message where it fails, SettingsError where the pool has no deployment.
    """
    pool = wheel.recipe.resources.work_pool
    steps = [wheel.planned[name] for name in STAGES if name in wheel]
    if pool is None or all(step.cached for step in steps):
        return
    errand = Errand(wheel, pool, steps, rows)
    for _ in range(1 + RESTARTS):
        run = errand.found() or errand.started()
        wheel.run.set_tags({"prefect.training_run_id": str(run.id)})
        with _ended_with_the_lifecycle(run):
            run = Follower(wheel.settings, pool, run).follow()
        if run.state_type is not StateType.CRASHED:
            break
        _tell(f"{_name(run)}: {_message(run)}; starting it again")
    if run.state_type is not StateType.COMPLETED:
        raise InfraError(f"training in the work pool {pool}, {_name(run)}", found=_message(run))
    wheel.elsewhere |= _seconds(run)
    _require(wheel.settings.store, steps)


class Errand:
    """What a worker is to do."""

    def __init__(self, wheel: Wheel, pool: str, steps: Sequence[PlannedStep], rows: Reference) -> None:
        mark = fingerprint.fingerprint({step.name: step.fingerprint for step in steps})
        self.deployment, self.tag = f"finetune/{pool}", f"training:{mark}"
        self.name = f"{wheel.recipe.name}-{mark[:8]}"
        self.parameters = {
            "recipe": wheel.recipe.model_dump(mode="json", by_alias=True),
            "steps": [{**vars(step), "ingredients": dict(step.ingredients)} for step in steps],
            "rows": {key: rows[key] for key in ("step", "fingerprint")},
            "run_id": wheel.run.id,
        }

    def found(self) -> FlowRun | None:
        """The run of this errand that goes on, if there is one."""
        return next((run for run in self._runs() if run.state is not None and not run.state.is_final()), None)

    def started(self) -> FlowRun:
        """A new run. Two lifecycles that start one at the same moment get the same."""
        try:
            run = run_deployment(
                self.deployment,
                parameters=self.parameters,
                timeout=0,
                flow_run_name=self.name,
                tags=[self.tag],
                idempotency_key=f"{self.tag}-{len(self._runs())}",
            )
        except ObjectNotFound as error:
            raise SettingsError(
                f"resources.work_pool: {self.deployment.partition('/')[2]}",
                found=f"no deployment {self.deployment} on the Prefect server",
                expected="a pool of prefect.yaml",
                remedy="start `flywheel up`, or run `prefect deploy --all` against the server in PREFECT_API_URL",
            ) from error
        assert isinstance(run, FlowRun)  # in a synchronous flow Prefect's dual functions return their value
        return run

    def _runs(self) -> list[FlowRun]:
        """Newest first."""
        with get_client(sync_client=True) as client:
            wanted = FlowRunFilter.model_validate({"tags": {"all_": [self.tag]}})
            return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC)


class Follower:
    """Looks at a run until it has ended, and says what it sees."""

    def __init__(self, settings: Settings, pool: str, run: FlowRun) -> None:
        self.settings, self.pool, self.run = settings, pool, run
        self.watch = Watch(settings, str(run.id))
        self.said: dict[str, str] = {}
        self.told = time.monotonic()

    def follow(self) -> FlowRun:
        """The run in its last state. Raises HTTPError where the server is away for too long."""
        _tell(f"{_name(self.run)} trains in the work pool {self.pool}")
        answered = time.monotonic()
        while True:
            try:
                if self._look():
                    return self.run
                answered = time.monotonic()
            except HTTPError:
                if time.monotonic() - answered > PATIENCE_SECONDS:
                    raise
            time.sleep(POLL_SECONDS)

    def _look(self) -> bool:
        """Whether it has ended."""
        with get_client(sync_client=True) as client:
            self.run = client.read_flow_run(self.run.id)
            if self.run.state is None or self.run.state.is_final():
                return True
            if self.run.state_type is not StateType.RUNNING:
                self.watch = Watch(self.settings, str(self.run.id))
                self._tell_waiting()
                return False
            self._tell_progress()
            if silence := self.watch.silent():
                words = f"no sign of life from its worker for {silence:.0f} s"
                client.set_flow_run_state(self.run.id, Crashed(message=words), force=True)
                self.watch.forget()
        return False

    def _tell_progress(self) -> None:
        """What the progress artifacts of the run say, as far as it is new."""
        with get_client(sync_client=True) as client:
            wanted = {"flow_run_id": {"any_": [self.run.id]}, "type": {"any_": ["progress"]}}
            found = client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(wanted))
        for one in found:
            line = f"{(one.key or '').removesuffix('-progress')}: {one.data:.0f} % {one.description or ''}"
            if self.said.get(str(one.id)) != line:
                self.said[str(one.id)] = line
                _tell(line)

    def _tell_waiting(self) -> None:
        if time.monotonic() - self.told < TELL_SECONDS or not (api := running(self.settings)):
            return
        self.told = time.monotonic()
        online = [str(worker) for worker in pools.adverts(api, self.pool) if worker.online]
        workers = "; ".join(online) or f"no worker is online: start one with `flywheel worker {self.pool}`"
        _tell(f"{_name(self.run)} waits in the work pool {self.pool}; {workers}")


@contextmanager
def _ended_with_the_lifecycle(run: FlowRun) -> Iterator[None]:
    """Cancel a run where the lifecycle is cancelled or interrupted. Where only its worker ends, the run goes on:
    the lifecycle finds it again."""
    try:
        yield
    except Exception:
        raise
    except BaseException as why:
        with suppress(HTTPError), get_client(sync_client=True) as client:
            mine = client.read_flow_run(UUID(str(runtime.flow_run.id)))
            cancelled = mine.state_type in (StateType.CANCELLING, StateType.CANCELLED)
            if cancelled or isinstance(why, KeyboardInterrupt):
                client.set_flow_run_state(run.id, Cancelling(message="its lifecycle was cancelled"))
        raise


def _seconds(run: FlowRun) -> dict[str, float]:
    """Task → seconds that it took there."""
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
        tasks = client.read_task_runs(flow_run_filter=wanted)
    return {task.name.rpartition("-")[0]: task.total_run_time.total_seconds() for task in tasks}


def _require(store: Path, steps: Sequence[PlannedStep]) -> None:
    """Wait until the artifacts are seen from here too."""
    deadline = time.monotonic() + SHARED_SECONDS
    for step in steps:
        place = artifact.location(store, step.name, step.fingerprint)
        while not (place / artifact.FILE).is_file():
            if time.monotonic() > deadline:
                raise ArtifactError(
                    f"store {store}",
                    found=f"no {step.name}/{step.fingerprint}, which was made in the work pool",
                    expected="one store for the lifecycle and the workers",
                    remedy="set FLYWHEEL_HOME of both to the same directory on a file system that they share",
                )
            time.sleep(1)


def _message(run: FlowRun) -> str:
    words = (run.state.message if run.state is not None else None) or f"it ended as {run.state_name}"
    return textwrap.indent(words, " " * 12).lstrip()


def _name(run: FlowRun) -> str:
    return f"run {run.name}"


def _tell(line: str) -> None:
    """For the terminal and for the UI."""
    sys.stderr.write(f"{line}\n")
    get_run_logger().info(line)
