"""Every retry, timeout, tag and cache key, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext

from flywheel.errors import FlywheelError
from infra.errors import InfraError, MissingError, StorageError, TrackingError

MINUTE, HOUR, DAY = 60, 3600, 86_400


@dataclass(frozen=True)
class Policy:
    """How Prefect treats one step."""

    timeout_seconds: int
    retries: int
    tags: tuple[str, ...]


POLICIES = {
    "acquire": Policy(6 * HOUR, 3, ("data",)),
    "ingest": Policy(2 * HOUR, 2, ("data",)),
    "prepare": Policy(2 * HOUR, 1, ("data",)),
    "validate": Policy(HOUR, 1, ("data",)),
    "features": Policy(6 * HOUR, 1, ("data",)),
    "train": Policy(7 * DAY, 1, ("training",)),
    "finetune": Policy(7 * DAY, 1, ("training",)),
    "evaluate": Policy(DAY, 1, ("evaluation",)),
    "champion": Policy(DAY, 1, ("evaluation",)),
    "gate": Policy(5 * MINUTE, 1, ("evaluation",)),
    "export": Policy(6 * HOUR, 1, ("model",)),
    "register": Policy(HOUR, 3, ("model",)),
    "deploy": Policy(HOUR, 2, ("serving",)),
}


class ByFingerprint(CachePolicy):
    """The cache key of a step is its fingerprint, so a step shows as `Cached` exactly when the plan says hit."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        step = inputs["job"].step
        return f"{step.name}-{step.fingerprint}"


def may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help: our own errors are about the input and stay, but for those of servers."""
    result = state.result(raise_on_failure=False)
    if isinstance(result, TrackingError | StorageError):
        return not isinstance(result, MissingError)
    return not isinstance(result, FlywheelError | InfraError)


def options(step: str) -> dict[str, Any]:
    """Arguments of `prefect.task` for a step. Results are small JSON references: never pickles, never data."""
    policy = POLICIES[step]
    return {
        "name": step,
        "tags": list(policy.tags),
        "retries": policy.retries,
        "retry_delay_seconds": [5, 30, 120][: policy.retries],
        "retry_condition_fn": may_pass,
        "timeout_seconds": policy.timeout_seconds,
        "cache_policy": ByFingerprint(),
        "persist_result": True,
        "result_serializer": "json",
    }
