"""Leases between real processes; the GPUs are those that a script named nvidia-smi tells of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra import devices
from infra.devices import Book, lease
from infra.errors import InfraError, SettingsError
from infra.settings import Settings
from tests.fake_gpus import nvidia_smi, uuid

HOLD = """
import sys, time
from infra.devices import lease
from infra.settings import Settings
with lease(Settings.load(), "cuda", int(sys.argv[1]), "another run") as held:
    print(" ".join(held.visible), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this a machine with some GPUs, and returns the settings of a process on it."""

    def with_gpus(count: int, **variables: str) -> Settings:
        monkeypatch.setenv("PATH", f"{nvidia_smi(tmp_path / 'bin', count)}:{os.environ['PATH']}")
        monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return Settings.load()

    monkeypatch.setattr(devices, "POLL_SECONDS", 0.05)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return with_gpus


@pytest.fixture
def holder():
    """Starts processes that hold GPUs, and ends them."""
    started = []

    def hold(count: int) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(count)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert len(process.stdout.readline().split()) == count
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_nvidia_smi_tells(machine):
    found = devices.devices(machine(2))
    assert [(d.index, d.uuid, d.name) for d in found] == [(n, uuid(n), "NVIDIA H200") for n in range(2)]
    assert (found[1].memory_total, found[1].memory_free) == (143771 << 20, 1001 << 20)


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        (f"{uuid(2)},0", [2, 0]),
        ("GPU-1", [1]),
        ("GPU-", []),
        ("0,7,1", [0]),
        ("1,1", []),
    ],
)
def test_an_outer_choice_of_devices_is_read_as_cuda_reads_it(machine, visible, indices):
    assert [d.index for d in devices.devices(machine(3, CUDA_VISIBLE_DEVICES=visible))] == indices


def test_a_part_of_a_gpu_is_a_device(machine):
    settings = machine(1, CUDA_VISIBLE_DEVICES="MIG-11111111-2222")
    with lease(settings, "cuda", 1, "me") as held:
        assert held.visible == ("MIG-11111111-2222",)


def test_a_machine_without_nvidia_smi_has_none(machine, monkeypatch, tmp_path):
    settings = machine(1)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.devices(settings) == []


def test_a_driver_without_gpus_has_none(machine, tmp_path):
    settings = machine(1)
    nvidia_smi(tmp_path / "bin", 0, output="No devices were found\n", code=6)
    assert devices.devices(settings) == []


@pytest.mark.parametrize(
    ("output", "code"), [("Failed to initialize NVML: Driver/library version mismatch\n", 18), ("0, GPU-1\n", 0)]
)
def test_a_driver_that_fails_is_an_error_and_not_a_machine_without_gpus(machine, tmp_path, output, code):
    settings = machine(1)
    nvidia_smi(tmp_path / "bin", 0, output=output, code=code)
    with pytest.raises(InfraError, match=output.split(":")[0].strip()):
        devices.devices(settings)


def test_memory_that_is_not_told_is_0(machine, tmp_path):
    settings = machine(1)
    nvidia_smi(tmp_path / "bin", 0, output=f"0, {uuid(0)}, NVIDIA GB10, [N/A], [N/A]\n")
    assert devices.devices(settings)[0].memory_total == 0


def test_auto_takes_gpus_where_there_are_any(machine):
    with lease(machine(1), "auto", 1, "me") as held:
        assert (held.kind, held.visible) == ("cuda", (uuid(0),))
    with lease(machine(0), "auto", 1, "me") as held:
        assert (held.kind, held.visible) == ("cpu", ())


def test_the_cpu_is_not_leased(machine):
    settings = machine(1)
    with lease(settings, "cpu", 2, "me") as held:
        assert held.kind == "cpu"
        assert Book(settings).holders() == {}


@pytest.mark.parametrize(("there", "kind", "wanted"), [(0, "cuda", 1), (1, "cuda", 2), (1, "auto", 2)])
def test_a_machine_that_can_never_do_it_refuses_at_once(machine, there, kind, wanted):
    with pytest.raises(SettingsError) as refused, lease(machine(there), kind, wanted, "me"):
        pass
    assert refused.value.found
    assert refused.value.remedy
    assert f"{wanted} GPU" in refused.value.expected


def test_the_devices_with_most_free_memory_are_taken(machine):
    with lease(machine(3), "cuda", 2, "me") as held:
        assert held.visible == (uuid(1), uuid(2))


def test_what_is_let_go_is_free(machine):
    settings = machine(1)
    with lease(settings, "cuda", 1, "me"):
        assert Book(settings).holders()[uuid(0)].holder == "me"
    assert Book(settings).holders() == {}


def test_two_runs_get_different_devices_and_a_third_waits(machine, holder):
    settings, told, got = machine(2), [], threading.Event()
    first = holder(1)
    holder(1)
    assert len(Book(settings).holders()) == 2

    def wait() -> None:
        with lease(settings, "cuda", 1, "me", told.append):
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.wait(0.5)
    assert told == ["waiting for 1 of 2 GPUs, held by another run"]
    first.kill()
    first.wait()
    waiting.join(20)
    assert got.is_set()


def test_the_lease_of_a_killed_process_is_free_at_once(machine, holder):
    settings = machine(1)
    dead = holder(1)
    before = Book(settings).holders()[uuid(0)]
    dead.kill()
    dead.wait()
    with lease(settings, "cuda", 1, "me") as held:
        assert held.tokens[0] > before.token


def test_a_holder_that_was_stopped_for_too_long_finds_that_it_has_lost(machine, holder):
    settings = machine(1, FLYWHEEL_LEASE_SECONDS="2")
    stopped = holder(1)
    stopped.send_signal(signal.SIGSTOP)
    with lease(settings, "cuda", 1, "me") as held:
        stopped.send_signal(signal.SIGCONT)
        time.sleep(1)
        assert Book(settings).holders()[uuid(0)].holder == "me"
        held.check()


def test_a_lease_that_another_took_is_seen_by_its_holder(machine):
    settings = machine(1, FLYWHEEL_LEASE_SECONDS="2")
    with lease(settings, "cuda", 1, "me") as held:
        file = settings.leases / f"{uuid(0)}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "token": held.tokens[0] + 1, "holder": "it"}))
        assert held.lost.wait(10)
        with pytest.raises(InfraError, match="another run has taken it"):
            held.check()
    assert Book(settings).holders()[uuid(0)].holder == "it"


def test_a_lease_is_renewed(machine):
    settings = machine(1, FLYWHEEL_LEASE_SECONDS="2")
    with lease(settings, "cuda", 1, "me") as held:
        time.sleep(2.5)
        assert uuid(0) in Book(settings).holders()
        held.check()


@pytest.mark.parametrize("change", [{"boot": "before"}, {"started": 1}, {"expires": 0}, {"pid": 2**22 + 1}])
def test_leases_that_hold_nothing(machine, change):
    settings = machine(1)
    book = Book(settings)
    (held,) = book.take(devices.devices(settings), 1, "me")
    file = settings.leases / f"{held.uuid}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert book.holders() == {}


def test_a_process_of_another_container_holds_until_its_time_is_over(machine):
    settings = machine(1)
    book = Book(settings)
    (held,) = book.take(devices.devices(settings), 1, "me")
    file = settings.leases / f"{held.uuid}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "namespace": "pid:[1]", "pid": 2**22 + 1}))
    assert list(book.holders()) == [uuid(0)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uuid": 1}'])
def test_a_file_that_is_no_lease_holds_nothing(machine, text):
    settings = machine(1)
    settings.leases.mkdir(parents=True)
    (settings.leases / f"{uuid(0)}.json").write_text(text)
    (settings.leases / "token").write_text(text)
    with lease(settings, "cuda", 1, "me") as held:
        assert held.tokens == (1,)


def test_many_who_want_the_same_never_hold_it_together(machine):
    settings, together, most = machine(2), [], []

    def work(number: int) -> None:
        with lease(settings, "cuda", 1 + number % 2, f"run {number}") as held:
            together.extend(held.visible)
            most.append(len(together) - len(set(together)))
            time.sleep(0.01)
            for one in held.visible:
                together.remove(one)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [0] * 6


def test_asking_for_devices_does_not_import_torch():
    probe = "import sys, infra.devices; sys.exit(bool({'torch', 'prefect', 'mlflow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", probe], check=False, cwd=Path(__file__).parents[2]).returncode == 0
