"""A real S3 server on loopback, started once and shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

Environment = dict[str, str]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The variables that boto3 reads. Skips where there is no server to start: `FLYWHEEL_TEST_S3` names its script."""
    beside = Path(__file__).parents[2] / "shared" / "bin" / "s3-server"
    script = os.environ.get("FLYWHEEL_TEST_S3") or (str(beside) if beside.is_file() else None)
    if script is None:
        pytest.skip("no S3 server: set FLYWHEEL_TEST_S3 to a script with `start DIR PORT` and `stop DIR`")
    installed = shutil.which("radosgw")
    directory = tmp_path_factory.mktemp("s3") / "server"
    try:
        done = subprocess.run(
            [script, "start", str(directory), str(_free_ports())], capture_output=True, text=True, check=False
        )
        if done.returncode and not installed:
            pytest.skip(f"the S3 server cannot be installed: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr
        yield dict(part.split("=", 1) for part in done.stdout.splitlines()[-1].split())
    finally:
        for file in directory.glob("run/*.pid"):  # nothing is worth the seconds of an orderly end
            with suppress(ValueError, ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)
            file.unlink()
        subprocess.run([script, "stop", str(directory)], capture_output=True, check=False)


@pytest.fixture
def s3(s3_server: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The server, and the environment of this process set to use it."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return s3_server


def _free_ports() -> int:
    """The first of three free ports in a row."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
        try:
            for offset in range(3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except (OSError, OverflowError):
            continue
        return port
