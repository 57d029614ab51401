"""The command as a user types it, in a directory of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
FLYWHEEL = [sys.executable, "-m", "flows.cli"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a user who has set nothing but where things go."""
    ours = ("FLYWHEEL_", "MLFLOW_", "PREFECT_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {**kept, "FLYWHEEL_HOME": str(home), "OMP_NUM_THREADS": "2", **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def flywheel(home: Path) -> Run:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*FLYWHEEL, *arguments]
        return subprocess.run(
            command, env=environment(home, **more), capture_output=True, text=True, check=False, timeout=280
        )

    return run
