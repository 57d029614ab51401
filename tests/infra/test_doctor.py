"""The examination of a machine that is made worse: real environments, real sockets, real metadata of packages."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra import doctor


def package(root: Path, name: str, version: str) -> None:
    """What pip leaves of an installed package, found before the real one when `root` comes first on the path."""
    described = root / f"{name.replace('-', '_')}-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A place for packages in front of all others; the store of Flywheel is elsewhere."""
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    return root


def found(thing: str) -> doctor.Finding:
    return next(f for f in doctor.examine() if f.thing == thing)


def test_a_sound_machine_has_no_error(site):
    findings = doctor.examine()
    assert [f for f in findings if f.level == "error"] == []
    assert {"python", "fastapi", "onnxruntime-gpu", "store", "disk", "memory", "gpu"} <= {f.thing for f in findings}


@pytest.mark.parametrize(
    ("name", "version"), [("fastapi", "0.155.0"), ("fastapi", "1.0.0"), ("sqlalchemy", "2.1b1"), ("sqlalchemy", "3.0")]
)
def test_versions_that_prefect_cannot_use_are_errors_with_a_fix(site, name, version):
    package(site, name, version)
    finding = found(name)
    assert finding.level == "error"
    assert version in finding.found
    assert finding.fix.startswith(f"pip install -c constraints.txt '{name}<")


def test_the_last_version_that_works_is_fine(site):
    package(site, "fastapi", "0.150.9")
    assert found("fastapi").level == "ok"


def test_a_second_onnxruntime_is_an_error(site):
    package(site, "onnxruntime", "1.31.1")
    finding = found("onnxruntime")
    assert finding.level == "error"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding.fix


def test_a_home_that_cannot_be_written(site, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "file" / "home"))
    finding = found("store")
    assert finding.level == "error"
    assert "FLYWHEEL_HOME" in finding.fix


def test_a_port_in_use_names_the_variable(site, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("FLYWHEEL_MLFLOW_PORT", str(port))
        finding = found(f"port {port}")
    assert (finding.level, finding.found) == ("warning", "in use")
    assert "FLYWHEEL_MLFLOW_PORT" in finding.fix


def test_without_a_compiler_training_is_slower_and_says_so(site, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = found("compiler")
    assert finding.level == "warning"
    assert "g++" in finding.fix


def test_each_finding_that_is_not_ok_has_a_fix(site, monkeypatch, tmp_path):
    package(site, "fastapi", "0.155.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = doctor.examine()
    assert all(bool(f.fix) == (f.level != "ok") for f in findings)
    assert all(f.fix in str(f) for f in findings)


def test_the_command_prints_json_and_fails_on_an_error(site):
    package(site, "fastapi", "0.155.0")
    command = [sys.executable, "-m", "flows.cli", "doctor", "--json"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, check=False)
    levels = {f["thing"]: f["level"] for f in json.loads(done.stdout)["findings"]}
    assert (done.returncode, levels["fastapi"], levels["python"]) == (1, "error", "ok")
