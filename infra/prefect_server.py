"""A Prefect server: the one that is running already, or a temporary one for a single run."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import httpx

from infra.errors import InfraError
from infra.leash import Leashed
from infra.settings import Settings

START_SECONDS = 120
"""A loaded machine takes far longer than the 5 seconds of an idle one."""


def running(settings: Settings) -> str | None:
    """The API of a server that answers: PREFECT_API_URL, or the one that `flywheel up` wrote down."""
    urls = [settings.prefect_api_url, _noted(settings.home / "up.json")]
    return next((url for url in urls if url and _healthy(url)), None)


class Temporary:
    """A server on the same database as `flywheel up`, without UI or schedules; other work can be done until `ready`.

    Own code instead of Prefect's ephemeral mode, whose server lives on when its parent is killed.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/api"
        port = self.url.rpartition(":")[2].partition("/")[0]
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--host", "127.0.0.1", "--port", port, "--log-level", "error", "--lifespan", "on"),
        ]
        environment = {
            **os.environ,
            **settings.environment(),
            "PREFECT_API_URL": self.url,
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        self.child = Leashed(command, environment, settings.home / "logs" / "prefect-temporary.log")

    def ready(self) -> str:
        """The API's address, once it answers."""
        wait_until_healthy(self.url, self.child, "temporary Prefect server")
        return self.url

    def stop(self) -> None:
        self.child.stop()


def wait_until_healthy(api: str, child: Leashed, name: str) -> None:
    """Wait for `GET api/health`. Raises InfraError with the end of the log where the child dies or stays silent."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.alive():
        if _healthy(api):
            return
        time.sleep(0.1)
    found = "it has ended" if not child.alive() else f"no answer in {START_SECONDS} s"
    raise InfraError(f"{name} at {api}", found=f"{found}\n{child.tail()}", remedy=f"see {child.log}")


def free_port() -> int:
    """A port that is free on the loopback interface now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _noted(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text())["prefect"]) + "/api"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
