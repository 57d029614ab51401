"""No program gets out of the sandbox, none passes without an answer, and honest ones pass meanwhile."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from flywheel import sandbox as module
from flywheel.sandbox import Limits, Program
from tests.hostile.escapes import ESCAPES
from tests.sandboxes import sandbox_or_skip

SECRET = "HUNTER2-of-the-host"
CHECKS = "# XYZZY-OF-THE-CHECKS\nassert answer() == 42\n"
LIMITS = Limits(seconds=1.0, memory=256 << 20, output=16 << 10)
HONEST = Program(
    "import threading\nfrom collections import Counter\n"
    "def common(words):\n"
    "    found = []\n"
    "    thread = threading.Thread(target=lambda: found.append(Counter(words).most_common(1)[0]))\n"
    "    thread.start(); thread.join()\n"
    "    open('/tmp/note', 'w').write(str(found))\n"
    "    return found[0]\n",
    "assert common(['a', 'b', 'a']) == ('a', 2)\n",
)


@pytest.fixture(scope="module")
def sandbox():
    return sandbox_or_skip()


class Host:
    """What must stay as it is: a file, servers that nobody visits, and no process left."""

    def __init__(self, directory: Path) -> None:
        self.canary = directory / "canary"
        self.canary.write_text(SECRET)
        self.canary.chmod(0o644)
        self.visits: list[str] = []
        abstract = f"canary-{os.getpid()}-{id(self)}"
        self._servers = [
            _server(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            _server(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            _server(socket.AF_UNIX, socket.SOCK_STREAM, str(directory / "socket")),
            _server(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{abstract}"),
        ]
        self.words = {
            "CANARY": str(self.canary), "TCP_PORT": str(self._servers[0].getsockname()[1]),
            "UDP_PORT": str(self._servers[1].getsockname()[1]), "UNIX_PATH": str(directory / "socket"),
            "ABSTRACT_NAME": abstract, "HOST_PID": str(os.getpid()), "HOST_NAME": os.uname().nodename,
        }  # fmt: skip
        self.before = self._state()

    def program(self, source: str) -> Program:
        for word, value in self.words.items():
            source = source.replace(word, value)
        return Program(source, CHECKS)

    def unharmed(self) -> bool:
        return self._state() == self.before and not self._visited() and not processes_left()

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def _state(self) -> tuple[object, ...]:
        found = self.canary.stat()
        return self.canary.read_text(), found.st_mode, found.st_nlink, found.st_mtime_ns, os.listdir(self.canary.parent)

    def _visited(self) -> bool:
        for server in self._servers:
            try:
                server.accept() if server.type == socket.SOCK_STREAM else server.recv(1)
                return True
            except BlockingIOError:
                pass
        return False


def _server(family: int, kind: int, address: object) -> socket.socket:
    server = socket.socket(family, kind)
    server.bind(address)
    if kind == socket.SOCK_STREAM:
        server.listen()
    server.setblocking(False)
    return server


def processes_left() -> list[int]:
    """Processes of the users that these tests' sandboxes run as; where one user does all, children of this process."""
    if os.geteuid():
        return [child.pid for child in psutil.Process().children(recursive=True)]
    return [p.pid for p in psutil.process_iter(["uids"]) if p.info["uids"] and p.info["uids"].real in module.USERS]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANDBOX_SECRET", SECRET)
        first = module.USERS.start + os.getpid() % 10_000 * 100
        patch.setattr(module, "USERS", range(first, first + 100))
        host = Host(tmp_path_factory.mktemp("host"))
        yield host
        host.close()


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_escapes(name, sandbox, host):
    began = time.monotonic()
    outcome = sandbox.run(host.program(ESCAPES[name]), LIMITS)
    assert outcome.status != "passed"
    assert b"ESCAPED" not in outcome.output
    assert SECRET.encode() not in outcome.output
    assert len(outcome.output) <= LIMITS.output
    assert host.unharmed()
    assert time.monotonic() - began < 20  # far from any limit: nothing waits for a child that sleeps


@pytest.mark.parametrize(
    "name",
    [
        "files-canary", "files-canary_by_symlink", "files-canary_by_hard_link", "files-environment", "files-devices",
        "files-environment_in_memory", "network-tcp", "network-udp", "network-unix", "network-unix_abstract",
        "network-unix_of_pair", "processes-fork_count",
    ],
)  # fmt: skip
def test_the_attacks_succeed_without_a_sandbox(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SANDBOX_SECRET", SECRET)
    host = Host(tmp_path)
    source = host.program(ESCAPES[name].replace("/tmp/", f"{tmp_path}/")).source
    found = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=30)
    host.close()
    assert b"ESCAPED" in found.stdout


def test_checks_that_share_the_process_can_be_read(sandbox):
    source = ESCAPES["forgeries-checks_in_memory"]
    assert b"ESCAPED" in sandbox.run(Program(source, CHECKS, shared=True), LIMITS).output


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("processes-busy_loop", "timeout"),
        ("processes-sleep_for_ever", "timeout"),
        ("processes-ignored_signals", "timeout"),
        ("processes-segfault", "crashed"),
        ("amounts-memory_at_once", "memory"),
        ("amounts-memory_of_children", "memory"),
        ("amounts-flood_stdout", "output"),
        ("amounts-files_many", "output"),
        ("forgeries-exit_at_once", "failed"),
    ],
)
def test_the_status_says_what_was_wrong(name, status, sandbox, host):
    assert sandbox.run(host.program(ESCAPES[name]), LIMITS).status == status


def test_honest_programs_pass_beside_bombs(sandbox, host):
    bombs = ("processes-fork_bomb", "processes-thread_bomb", "amounts-memory_at_once", "amounts-disk_full")
    programs = [p for bomb in bombs for p in (host.program(ESCAPES[bomb]), HONEST, HONEST)]
    outcomes = list(sandbox.run_many(programs, Limits(seconds=5.0), workers=3))
    assert [o.status == "passed" for o in outcomes] == [False, True, True] * len(bombs)
    assert host.unharmed()


def test_all_processes_together_keep_to_the_memory(sandbox, host):
    held, done = [0], threading.Event()

    def look():
        own = psutil.Process()
        while not done.wait(0.02):
            sizes = [0]
            for child in own.children(recursive=True):
                try:
                    sizes.append(child.memory_info().rss)
                except psutil.Error:
                    continue
            held.append(sum(sizes))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        sandbox.run(host.program(ESCAPES["amounts-memory_of_children"]), LIMITS)
    finally:
        done.set()
        watcher.join()
    assert max(held) < 8 * LIMITS.memory  # two looks are 50 ms apart


def test_the_answers_of_another_problem_are_out_of_reach(sandbox, host):
    hoard = Program("open('/tmp/answer', 'w').write('42')\ndef answer(): return 41", CHECKS)
    thief = Program("def answer(): return int(open('/tmp/answer').read())", CHECKS)
    assert [o.status for o in sandbox.run_many([hoard, thief], LIMITS)] == ["failed", "failed"]


def test_stopping_early_leaves_nothing(sandbox, host):
    outcomes = sandbox.run_many([HONEST] * 20, LIMITS, workers=2)
    next(outcomes)
    outcomes.close()
    assert host.unharmed()


def test_a_program_dies_with_whoever_started_it(sandbox, host):
    child = os.fork()
    if child == 0:
        sandbox.run(host.program("import time\ntime.sleep(60)"), Limits(seconds=60))
        os._exit(0)
    while len(processes_left()) < 2:
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    for _ in range(500):
        if not processes_left():
            break
        time.sleep(0.01)
    assert processes_left() == []
