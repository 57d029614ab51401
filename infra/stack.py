"""`flywheel up`: Prefect, MLflow, a worker and the model server, all on loopback, all ending together."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx

from infra import pools
from infra.devices import devices
from infra.errors import InfraError
from infra.leash import Leashed
from infra.settings import Settings

START_SECONDS = 180
FOLLOW_SECONDS = 10
"""How often the registry is asked for new champions."""
PROJECT = Path(__file__).resolve().parent.parent

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """One server of the stack."""

    name: str
    command: tuple[str, ...]
    url: str
    health: str
    variable: str
    """What sets its port."""


def up(tell: Tell = print) -> None:
    """Start everything, say where it is, and wait for Ctrl-C or SIGTERM. Raises InfraError where a part fails."""
    settings = Settings.load()
    signal.signal(signal.SIGTERM, _interrupt)
    with _only_one(settings), ExitStack() as stack:
        environment = {**os.environ, **settings.environment()}
        prefect, mlflow = _prefect(settings), _mlflow(settings)
        environment["PREFECT_API_URL"] = f"{prefect.url}/api"
        children = {s.name: _start(stack, s, environment, settings) for s in (prefect, mlflow)}
        for server in (prefect, mlflow):
            _wait(server, children[server.name])
            tell(f"{server.name:<10} {server.url}")
        _note(settings, {"prefect": prefect.url, "mlflow": mlflow.url, "pid": os.getpid()})
        stack.callback((settings.home / "up.json").unlink, missing_ok=True)
        deploy(environment)
        for pool in _pools(settings):
            started = pools.worker(settings, environment["PREFECT_API_URL"], pool, environment)
            children[f"worker {pool}"] = stack.enter_context(started)
            tell(f"{'worker':<10} pool {pool}")
        tell("the deployments of prefect.yaml are registered")
        tell("Ctrl-C stops all of them")
        try:
            _follow(settings, environment, children, tell)
        except KeyboardInterrupt:
            tell("stopping")


def _pools(settings: Settings) -> tuple[str, ...]:
    """The pools that this machine works for."""
    wanted = bool(devices(settings)) if settings.gpu_worker is None else settings.gpu_worker
    return pools.POOLS if wanted else (pools.CPU,)


def _prefect(settings: Settings) -> Server:
    url = f"http://127.0.0.1:{settings.prefect_port}"
    port = str(settings.prefect_port)
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
    return Server("Prefect", command, url, f"{url}/api/health", "FLYWHEEL_PREFECT_PORT")


def _mlflow(settings: Settings) -> Server:
    url = f"http://127.0.0.1:{settings.mlflow_port}"
    return Server("MLflow", (sys.executable, "-m", "mlflow_server"), url, f"{url}/health", "FLYWHEEL_MLFLOW_PORT")


def _models(settings: Settings, champions: Mapping[str, int]) -> Server:
    url = f"http://127.0.0.1:{settings.serve_port}"
    command = (sys.executable, "-m", "flows.cli", "serve", *(f"{name}/{v}" for name, v in champions.items()))
    return Server("models", command, f"{url}/v1", f"{url}/ready", "FLYWHEEL_SERVE_PORT")


def _start(stack: ExitStack, server: Server, environment: Mapping[str, str], settings: Settings) -> Leashed:
    _refuse_taken(server)
    return _child(stack, server.name.lower(), server.command, environment, settings)


def _child(
    stack: ExitStack,
    name: str,
    command: tuple[str, ...] | list[str],
    environment: Mapping[str, str],
    settings: Settings,
) -> Leashed:
    child = Leashed(command, environment, settings.home / "logs" / f"{name}.log")
    stack.callback(child.stop)
    return child


def _wait(server: Server, child: Leashed) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not child.alive():
            raise InfraError(server.name, found=f"it ended\n{child.tail()}", remedy=f"see {child.log}")
        if _answers(server.health):
            return
        time.sleep(0.2)
    raise InfraError(server.name, found=f"no answer in {START_SECONDS} s\n{child.tail()}", remedy=f"see {child.log}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _refuse_taken(server: Server) -> None:
    if _answers(server.health):
        raise InfraError(
            f"{server.name} at {server.url}",
            found="another server answers there",
            expected="a free port",
            remedy=f"stop it, or set {server.variable}",
        )


def deploy(environment: Mapping[str, str]) -> None:
    """Make the work pools and register the deployments of prefect.yaml; repeating it changes nothing."""
    pools.make(environment["PREFECT_API_URL"])
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=PROJECT,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    if done.returncode:
        raise InfraError("prefect deploy --all", found=(done.stdout + done.stderr)[-2000:])


def _follow(settings: Settings, environment: Mapping[str, str], children: dict[str, Leashed], tell: Tell) -> None:
    """Serve the champions of the registry, and serve anew when they change. Raises when a part ends by itself."""
    from infra import registry

    served: dict[str, int] = {}
    with ExitStack() as serving:
        while True:
            champions = {v.name: v.version for v in registry.models(settings) if "champion" in v.aliases}
            if champions != served:
                serving.close()
                children.pop("models", None)
                if champions:
                    server = _models(settings, champions)
                    children["models"] = _start(serving, server, environment, settings)
                    _wait(server, children["models"])
                    tell(f"{'models':<10} {server.url}  " + ", ".join(f"{n} {v}" for n, v in champions.items()))
                served = champions
            for name, child in children.items():
                if not child.alive():
                    raise InfraError(name, found=f"it ended\n{child.tail()}", remedy=f"see {child.log}")
            time.sleep(FOLLOW_SECONDS)


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / ".up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InfraError(
                "flywheel up", found=f"it runs already for {settings.home}", remedy="use that one"
            ) from None
        yield


def _note(settings: Settings, what: Mapping[str, object]) -> None:
    """Where the servers are, for `flywheel run`."""
    draft = settings.home / ".up.json"
    draft.write_text(json.dumps(what))
    draft.rename(settings.home / "up.json")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
