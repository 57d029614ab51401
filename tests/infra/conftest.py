"""MLflow twice: a SQLite file without a server, and a real `mlflow server` with proxied artifacts."""

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from infra.settings import Settings, quiet_environment
from infra.tracking import prepare_database
from mlflow_server.server import command


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    prepare_database(f"sqlite:///{path}")
    return path


@pytest.fixture
def local(tmp_path, empty_database) -> Settings:
    home = tmp_path / "a home"
    home.mkdir()
    shutil.copy(empty_database, home / "mlflow.db")
    return Settings.load({"FLYWHEEL_HOME": str(home)})


@pytest.fixture(scope="session")
def server(tmp_path_factory, empty_database):
    home = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, home / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    behind = Settings.load({"FLYWHEEL_HOME": str(home), "FLYWHEEL_MLFLOW_PORT": port})
    environment = {**os.environ, **quiet_environment()}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command(behind, proxied=True), env=environment, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process)
        yield Settings.load({"FLYWHEEL_HOME": str(home / "client"), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"})
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("mlflow server stopped while it was starting")


@pytest.fixture(params=["local", "server"])
def settings(request) -> Settings:
    return request.getfixturevalue(request.param)
