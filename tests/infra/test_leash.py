"""Real processes: no child, and no child of a child, outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.leash import Leashed

SLEEPS = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
BREEDS = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]).pid, flush=True)"
PARENT = """
import os, sys, time
from pathlib import Path
from infra.leash import Leashed
Leashed([sys.executable, "-c", sys.argv[1]], os.environ, Path(sys.argv[2]))
time.sleep(600)
"""


def started(log: Path) -> psutil.Process:
    """The process that has written its greeting to the log: the youngest one below the leash that holds it."""
    until(lambda: log.exists() and b"ready" in log.read_bytes())
    mine = [p for p in psutil.Process().children(recursive=True) if SLEEPS in " ".join(p.cmdline())]
    return mine[-1]


def until(true, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def leash(tmp_path):
    held = []

    def start(code: str) -> Leashed:
        held.append(Leashed([sys.executable, "-c", code], os.environ, tmp_path / "log"))
        return held[-1]

    yield start
    for child in held:
        child.stop()


def test_a_killed_parent_takes_its_child_along(tmp_path):
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, SLEEPS, str(log)])
    child = started(log)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: gone(child))


def test_stop_ends_the_child(leash, tmp_path):
    held = leash(SLEEPS)
    child = started(tmp_path / "log")
    assert held.alive()
    held.stop()
    assert gone(child)
    assert not held.alive()


def test_a_child_that_ignores_the_polite_signal_is_killed(leash, tmp_path, monkeypatch):
    short = "import infra.leash as l, sys; l.GRACE_SECONDS = 0.2; sys.exit(l.main(sys.argv[1:]))"
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-c", short, sys.executable, "-c", STUBBORN]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out)
    child = started(log)
    process.stdin.close()
    assert process.wait() == -signal.SIGKILL % 256
    assert gone(child)


def test_what_a_child_leaves_behind_ends_too(leash, tmp_path):
    held = leash(BREEDS)
    until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().strip().isdecimal())
    grandchild = int((tmp_path / "log").read_text())
    assert held.process.wait() == 0
    until(lambda: not psutil.pid_exists(grandchild) or gone(psutil.Process(grandchild)))


def test_a_child_that_ends_by_itself_is_seen(leash):
    held = leash("import sys; print('one\\ntwo\\nthree'); sys.exit(3)")
    assert held.process.wait() == 3
    assert not held.alive()
    assert held.tail(2) == "two\nthree"
