"""Work pools of Prefect: a worker on this machine, and what the workers of a pool say of their machines.

A worker advertises its devices as a Prefect variable `flywheel_worker_POOL_HOST`, anew every half minute: free memory
changes. Whether it is online is Prefect's own word.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infra.devices import Device, devices
from infra.errors import InfraError
from infra.leash import Leashed
from infra.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

CPU, GPU = "cpu", "gpu"
POOLS = (CPU, GPU)
"""The pools of prefect.yaml."""
ADVERTISE_SECONDS = 30
PREFIX = "flywheel_worker_"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Advert:
    """What a worker says of its machine."""

    name: str
    pool: str
    devices: tuple[Device, ...]
    memory: int
    """Free bytes of the machine's own memory."""
    updated: str
    """ISO 8601."""
    online: bool = True

    def __str__(self) -> str:
        gpus = ", ".join(f"{d.name} ({d.memory_free >> 30} of {d.memory_total >> 30} GiB free)" for d in self.devices)
        said = f"{gpus or 'no GPU'}; {self.memory >> 30} GiB of memory free"
        return f"{self.name}: {said if self.online else 'offline'}"


def make(api: str) -> None:
    """Make the pools; those that are there already stay as they are."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with _client(api) as client:
        for pool in POOLS:
            with suppress(ObjectAlreadyExists):
                client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))


@contextmanager
def worker(settings: Settings, api: str, pool: str, environment: Mapping[str, str]) -> Iterator[Leashed]:
    """A process worker of a pool that advertises its devices while the context lasts; it ends with this process."""
    name = os.uname().nodename
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", name]
    log = settings.home / "logs" / ("worker.log" if pool == CPU else f"worker-{pool}.log")
    child, done = Leashed(command, {**environment, "PREFECT_API_URL": api}, log), threading.Event()
    thread = threading.Thread(target=_advertise, args=(settings, api, pool, name, done), daemon=True)
    thread.start()
    try:
        yield child
    finally:
        done.set()
        child.stop()
        thread.join()


def work(settings: Settings, api: str, pool: str, tell: Tell) -> None:
    """Be a worker of a pool until an interrupt. Raises InfraError where the worker ends by itself."""
    mine = _advert(settings, pool, os.uname().nodename)
    with worker(settings, api, pool, os.environ) as child:
        tell(f"worker of the pool {pool} at {api}; its log is {child.log}")
        tell(str(mine))
        if pool == GPU and not mine.devices:
            tell("runs that ask for a GPU will be refused here")
        child.process.wait()
    raise InfraError(f"worker of the pool {pool}", found=f"it ended\n{child.tail()}", remedy=f"see {child.log}")


def adverts(api: str, pool: str) -> list[Advert]:
    """The workers of a pool, as far as they are known; none where the pool is not."""
    from prefect.exceptions import ObjectNotFound

    with _client(api) as client:
        try:
            known = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            return []
        said = {v.name: v.value for v in client.read_variables(limit=200)}
    found = []
    for one in known:
        value: Any = said.get(_variable(pool, one.name))
        if value:
            gpus = tuple(Device(**d) for d in value["devices"])
            online = one.status is not None and one.status.value == "ONLINE"
            found.append(Advert(**{**value, "devices": gpus, "online": online}))
    return found


def _advertise(settings: Settings, api: str, pool: str, name: str, done: threading.Event) -> None:
    """Say what there is, until `done`. A server that is away hears it later; a driver that fails is seen by the run."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException
    from prefect.variables import Variable

    while True:
        with suppress(InfraError, PrefectException, HTTPError, OSError), _client(api):
            said = asdict(_advert(settings, pool, name))
            Variable.set(_variable(pool, name), {**said, "devices": list(said["devices"])}, overwrite=True)
        if done.wait(ADVERTISE_SECONDS):
            break
    with suppress(PrefectException, HTTPError, OSError), _client(api):
        Variable.unset(_variable(pool, name))


def _advert(settings: Settings, pool: str, name: str) -> Advert:
    import psutil

    free = psutil.virtual_memory().available
    return Advert(name, pool, tuple(devices(settings)), free, datetime.now(UTC).isoformat())


def _variable(pool: str, name: str) -> str:
    """A name that Prefect takes for a variable."""
    return PREFIX + re.sub("[^a-z0-9]+", "_", f"{pool}_{name}".lower())


@contextmanager
def _client(api: str) -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        yield client
