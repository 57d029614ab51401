"""From a registered version back to the same weights, or a list of what differs: real runs of the command."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from flows import reproduce
from flywheel import hardware
from flywheel.hardware import changes
from tests.e2e.conftest import Run
from tests.recipes import code_files, code_recipe, write

STAGE = {
    "max_steps": 4,
    "logging_steps": 2,
    "per_device_train_batch_size": 4,
    "max_length": 64,
    "auto": True,
}


@pytest.fixture(scope="module")
def source(home: Path, flywheel: Run) -> Path:
    """The source files of a version that was registered."""
    recipe = code_recipe(code_files(home / "src", 4), train={**STAGE, "warmup_steps": 1}, evaluate={"num_samples": 4})
    done = flywheel("run", str(write(home / "tiny.yaml", recipe)), "--json")
    assert done.returncode in (0, 3), done.stderr
    return home / "src"


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


def test_the_same_weights_come_out(source: Path, home: Path, flywheel: Run) -> None:
    before = sorted(home.rglob("*.safetensors"))
    done = flywheel("reproduce", "tiny-coder/1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["identical"], found["differences"], found["first"]) == (True, [], "")
    assert "model/model.safetensors" in {f["file"] for f in found["files"]}
    assert all(f["then"] == f["now"] and len(f["then"]) == 64 for f in found["files"])
    assert sorted(home.rglob("*.safetensors")) == before
    assert not list(home.glob(".reproducing-*"))


def test_another_package_is_listed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "tokenizers" else version(name))
    found = reproduce.reproduce("tiny-coder/1")
    assert found["identical"] is None
    assert found["differences"] == [f"package tokenizers: {version('tokenizers')} → 0.1"]


def test_another_class_of_hardware_is_listed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = hardware.hardware()
    there: dict[str, Any] = {**here, "cpu": "Another CPU", "devices": ["a GPU"], "threads": 99}
    monkeypatch.setattr(hardware, "hardware", lambda: there)
    found = reproduce.reproduce("tiny-coder/1")
    assert found["differences"] == [f"hardware cpu: {here['cpu']} → Another CPU", "hardware devices: none → a GPU"]
    assert found["identical"] is None


@pytest.mark.slow
def test_a_changed_source_is_listed_and_anyway_tells_where_it_parts(source: Path, flywheel: Run) -> None:
    files = {path: path.read_text() for path in source.rglob("*.py")}
    for path, text in files.items():
        path.write_text(text.replace("Return the value", "Give the value"))
    done = flywheel("reproduce", "tiny-coder/1")
    assert done.returncode == 2, done.stderr
    assert "file src/module1/file0.py changed" in done.stdout
    assert "not tried" in done.stdout
    done = flywheel("reproduce", "tiny-coder/1", "--anyway", "--json")
    found = json.loads(done.stdout)
    for path, text in files.items():
        path.write_text(text)
    assert (done.returncode, found["identical"], found["first"]) == (1, False, "ingest")
    assert any(f["then"] != f["now"] for f in found["files"] if f["file"] == "model/model.safetensors")


def test_what_was_not_recorded_counts_as_different() -> None:
    now = hardware.hardware()
    assert changes({}, now) == [f"hardware {n}: not recorded → {hardware._said(now[n])}" for n in hardware.CLASS]
    assert changes(now, {**now, "world_size": 2}) == []
