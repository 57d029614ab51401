"""Who works on shards: processes of this machine, tasks that Prefect maps, or a Dask or Ray cluster behind Prefect."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flywheel import workers
from flywheel.confinement import Answer
from flywheel.recipe import Resources
from flywheel.scratch import scratch
from flywheel.workers import Mapper, Pool, Request
from infra.errors import SettingsError
from infra.settings import stay_on_this_machine

BATCHES = 4
"""Tasks for each worker: coarse enough for what a task costs, fine enough to balance."""
OBJECTS = 80 << 20
"""Bytes of shared memory for the objects of a local Ray, about the least it takes: only JSON passes through it."""
LOOPBACK = "127.0.0.1"


@contextmanager
def mapper(resources: Resources) -> Iterator[Mapper]:
    """What runs requests over shards, as `resources` of the recipe says.

    A local cluster lives as long as the context, listens on loopback alone, and leaves nothing behind.
    Raises SettingsError where the package of a cluster is not installed.
    """
    if resources.runner == "processes":
        with Pool(resources.workers) as pool:
            yield pool
        return
    number = resources.workers or Pool().size
    with scratch(Path(tempfile.gettempdir()), "flywheel-shards-") as place, _runner(resources, number, place) as runner:
        yield partial(_mapped, runner, number)


@task(name="shards", cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=5)
def batch(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run some requests in a worker of this process; what they write is a shard in the store, which all share."""
    return [asdict(answer) for answer in workers.here([workers.request(raw) for raw in requests])]


def _mapped(runner: TaskRunner[Any], number: int, requests: Sequence[Request]) -> Iterator[Answer]:
    size = max(1, -(-len(requests) // (BATCHES * number)))
    batches = [[asdict(r) for r in requests[i : i + size]] for i in range(0, len(requests), size)]
    for future in [runner.submit(batch, {"requests": some}) for some in batches]:
        yield from (Answer(**raw) for raw in future.result())


def _runner(resources: Resources, number: int, place: Path) -> TaskRunner[Any]:
    """One of Prefect's task runners; `place` is for the files of a local cluster."""
    try:
        if resources.runner == "dask":
            return _dask(resources.address, number, place)
        if resources.runner == "ray":
            return _ray(resources.address, number, place)
    except ImportError as error:
        raise SettingsError(
            f"resources.runner: {resources.runner}",
            found=str(error),
            expected=f"the packages prefect-{resources.runner} and {resources.runner}",
            remedy=f"run `pip install -c constraints.txt 'flywheel-mlops[{resources.runner}]'`",
        ) from error
    return ThreadPoolTaskRunner(max_workers=number)


def _dask(address: str | None, number: int, place: Path) -> TaskRunner[Any]:
    import dask
    from prefect_dask.task_runners import DaskTaskRunner

    dask.config.set({"temporary-directory": str(place)})
    local = {
        "n_workers": number,
        "threads_per_worker": 1,
        "host": LOOPBACK,
        "dashboard_address": None,
        "local_directory": str(place),
        "silence_logs": logging.ERROR,
    }
    runner: TaskRunner[Any] = DaskTaskRunner(address=address, cluster_kwargs=None if address else local)
    return runner


def _ray(address: str | None, number: int, place: Path) -> TaskRunner[Any]:
    if not address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's word for a node that is 127.0.0.1 to itself
        os.environ["RAY_AUTH_MODE"] = "token"
        # Else one is left in the home directory. Ray reads it once in the life of a process.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    stay_on_this_machine(hub=True)  # Ray reads at its import whether it may report its use
    import ray  # noqa: F401  (prefect_ray imports it too late for a clear error)
    from prefect_ray.task_runners import RayTaskRunner

    local = {
        "num_cpus": number,
        "include_dashboard": False,
        "configure_logging": False,
        "log_to_driver": False,
        "object_store_memory": OBJECTS,
        "_temp_dir": str(place / "ray"),  # which it opens to everybody
    }
    runner: TaskRunner[Any] = RayTaskRunner(address=address, init_kwargs={} if address else local)
    return runner
