"""Training in a work pool: what the lifecycle hands to a worker that has the GPUs, and what other machines add to it.

The directory of the store is shared; parameters hold fingerprints and paths, never data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import Task, flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flywheel import artifact
from flywheel.errors import ArtifactError, FlywheelError
from flywheel.plan import PlannedStep
from flywheel.recipe import Recipe
from infra import devices
from infra.beats import beating
from infra.errors import InfraError
from infra.settings import Settings
from tasks.finetune import finetune as second_stage
from tasks.machines import joined
from tasks.shell import Job, Reference
from tasks.train import train as first_stage


@flow(name="finetune", persist_result=False)
def finetune(recipe: Recipe, steps: Sequence[PlannedStep], rows: Reference, run_id: str) -> State[Any]:
    """Train the stages of a lifecycle that calls this flow and follows it; their artifacts go to the store.

    Args:
        recipe: The lifecycle's recipe.
        steps: `train`, and `finetune` where the recipe has it, as the lifecycle has planned them.
        rows: The artifact of `validate`: `{"step", "fingerprint"}`.
        run_id: The lifecycle's MLflow run.
    """
    settings, planned = Settings.load(), {step.name: step for step in steps}

    def turn(task: Task[..., Reference], **inputs: Any) -> Reference:
        step = planned[task.name]
        reference: Reference = task.with_options(refresh_cache=not step.cached)(
            Job(recipe, step, settings, run_id), **inputs
        )
        return reference

    try:
        devices.resolve(settings, recipe.resources.accelerator, recipe.resources.accelerators)
        _require(artifact.location(settings.store, rows["step"], rows["fingerprint"]))
        with beating(settings, str(runtime.flow_run.id)):
            base = turn(first_stage, rows=rows)
            if second_stage.name in planned:
                turn(second_stage, start=base, rows=rows)
    except (FlywheelError, InfraError) as error:
        return _told(error)
    return Completed()


@flow(name="finetune-node", persist_result=False)
def finetune_node(
    recipe: Recipe, stage: Literal["train", "finetune"], paths: dict[str, Path | None], node_rank: int, endpoint: str
) -> State[Any]:
    """Be a further machine of a training: what it learns goes to the first one, which started this run.

    Args:
        recipe: The lifecycle's recipe.
        stage: The stage that is trained.
        paths: `rows`, `start`, `out`, `work` and `kept` of the stage, in the store that all machines share.
        node_rank: Number of this machine, from 1.
        endpoint: host:port of the first machine.
    """
    try:
        joined(Settings.load(), recipe, stage, paths, (node_rank, endpoint))
    except (FlywheelError, InfraError) as error:
        return _told(error)
    return Completed()


def _told(error: Exception) -> State[Any]:
    """A failure whose message is the error's own, for whoever follows."""
    get_run_logger().error("%s", error)
    return Failed(message=str(error))


def _require(rows: Path) -> None:
    if not (rows / artifact.FILE).is_file():
        raise ArtifactError(
            f"store {rows.parents[1]}",
            found=f"no {rows.parent.name}/{rows.name}, which the lifecycle has made",
            expected="the store of the lifecycle",
            remedy="set FLYWHEEL_HOME of the worker to the lifecycle's, on a file system that they share",
        )
