"""Runs a Python program that nobody has read, in bubblewrap: other user, no network, no files, and limits on all it
takes. Where that cannot be had it raises SandboxError, and nothing is run.

The sandbox is made anew for each program. It holds the interpreter with its standard library, the system's shared
libraries, three devices and a small directory in memory; no /proc, no /sys, no home, and no environment. What runs
inside it is `flywheel/sandboxed.py`, which keeps the checks of a program out of the program's reach.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from flywheel import sandboxed, seccomp
from flywheel.errors import SandboxError

Status = Literal["passed", "failed", "timeout", "memory", "output", "crashed"]

HOME, INSIDE = "/python", "/python/sandboxed.py"
"""Where the interpreter is, inside."""
NOBODY = 65534
USERS = range(0x7000_0000, 0x8000_0000)
"""User ids that no system gives to anyone; root takes one of them for each program, so that processes are counted for
each program alone."""
START = 30.0
"""Seconds until a sandbox must stand."""
WATCH = 0.05
"""Seconds between two looks at memory and files."""
VERDICT = 1 << 16
REMEDY = (
    "install bubblewrap 0.8 or later and util-linux, and let this process make name spaces (a user: sysctl "
    "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; root in a container: "
    "CAP_SYS_ADMIN)"
)


@dataclass(frozen=True)
class Limits:
    """What one program may take."""

    seconds: float = 5.0
    """By the clock, and of processor time for each process."""
    memory: int = 512 << 20
    """Bytes of address space of each process, and of all that all of them hold together."""
    processes: int = 16
    """Processes and threads, two of which are the sandbox's own."""
    disk: int = 16 << 20
    """Bytes of all files, which are in memory; a single file has no more."""
    files: int = 1000
    """Files and directories."""
    output: int = 64 << 10
    """Bytes of standard output and standard error together."""


@dataclass(frozen=True)
class Program:
    """A program and the checks that it must pass."""

    source: str
    checks: str = ""
    """Run after the source, in another process that calls the source's functions with copies of plain values. Without
    checks the source is a script that passes when it ends with exit code 0."""
    prelude: str = ""
    """What the checks lean on, run before them on their side."""
    entry: tuple[str, ...] = ()
    """Names of the source that the checks use even where Python or the prelude has such a name."""
    shared: bool = False
    """Run the checks in the source's own process, for those that need its objects. A program can then fake them."""
    stdin: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """What came of one program."""

    status: Status
    exit_code: int | None = None
    """Of the program where it ended by itself, or minus the signal that ended it."""
    output: bytes = b""
    """Its standard output and standard error, up to the limit."""
    seconds: float = 0.0
    compiled: bool = False
    """Whether Python accepted the source; nothing of it had run by then."""
    detail: str = ""
    """The exception and the check that it comes from."""


@dataclass
class _Heard:
    """What a sandbox has said so far."""

    output: bytearray = field(default_factory=bytearray)
    verdict: bytearray = field(default_factory=bytearray)
    reason: Status | None = None
    """Why it was ended."""


class Sandbox:
    """bubblewrap, found and seen to work."""

    def __init__(self) -> None:
        """Raises SandboxError where this machine has no sandbox."""
        if not sys.platform.startswith("linux") or not seccomp.for_sandbox():
            raise SandboxError(
                "no sandbox for generated code", found=f"{sys.platform} on {os.uname().machine}",
                expected="Linux on x86-64 or AArch64", remedy="run this part of the evaluation on such a machine",
            )  # fmt: skip
        self._tools = {name: _tool(name) for name in ("bwrap", "prlimit")}
        self._python = _interpreter()
        outcome = self.run(Program("import os\nassert os.getuid() and not os.path.exists('/etc')"), Limits(seconds=30))
        if outcome.status != "passed":
            raise _unusable(outcome.detail or outcome.status)

    def version(self) -> str:
        """`bubblewrap 0.8.0`."""
        return subprocess.run([self._tools["bwrap"], "--version"], capture_output=True, text=True).stdout.strip()

    def run(self, program: Program, limits: Limits | None = None) -> Outcome:
        """Run one program to its end or its limits; no process of it is left afterwards.

        Raises SandboxError where no sandbox could be made for it.
        """
        limits, heard = limits or Limits(), _Heard()
        with ExitStack() as stack:
            job = stack.enter_context(_in_memory(_job(program)))
            rules = stack.enter_context(_in_memory(seccomp.for_sandbox()))
            output, saying = os.pipe()
            verdict, judging = os.pipe()
            for end in (output, verdict):
                stack.callback(os.close, end)
            try:
                process = subprocess.Popen(
                    self._command(limits, rules.fileno(), judging), stdin=job, stdout=saying, stderr=saying, env={},
                    pass_fds=(rules.fileno(), judging),
                )  # fmt: skip
            finally:
                os.close(saying)
                os.close(judging)
            try:
                seconds = _watch(process.pid, {output: heard.output, verdict: heard.verdict}, heard, limits)
            finally:
                _end(process)
        return _outcome(heard, process.returncode, seconds, limits)

    def run_many(
        self, programs: Iterable[Program], limits: Limits | None = None, workers: int = 1
    ) -> Iterator[Outcome]:
        """The outcome of each program, in order; up to `workers` run at the same time."""
        waiting: deque[Future[Outcome]] = deque()
        with ThreadPoolExecutor(workers) as threads:
            try:
                for program in programs:
                    waiting.append(threads.submit(self.run, program, limits))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _command(self, limits: Limits, rules: int, judging: int) -> list[str]:
        cpu = math.ceil(limits.seconds)
        caps = (
            f"--as={limits.memory}", f"--cpu={cpu}:{cpu + 1}", f"--fsize={limits.disk}", "--nofile=64", "--core=0",
            "--memlock=0", "--msgqueue=0", "--sigpending=256", "--nice=0", "--rtprio=0",
        )  # fmt: skip
        root = os.geteuid() == 0
        user = secrets.choice(USERS) if root else NOBODY
        rights = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID") if root else (
            "--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)
        )  # fmt: skip
        return [
            self._tools["prlimit"], *caps, self._tools["bwrap"], "--die-with-parent", "--new-session", "--as-pid-1",
            "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
            "--hostname", "sandbox", "--cap-drop", "ALL", *rights, "--clearenv", "--setenv", "PYTHONHOME", HOME,
            "--setenv", "PYTHONHASHSEED", "0", "--setenv", "LD_LIBRARY_PATH", f"{HOME}/lib", *self._python,
            "--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/",
            "--seccomp", str(rules), f"{HOME}/bin/python3", "-s", "-S", "-P", "-B", "-u", INSIDE,
            str(user), str(limits.processes), str(math.ceil(limits.seconds + START)), str(judging),
        ]  # fmt: skip


# ---------------------------------------------------------------- what there is


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise _unusable(f"no {name} on this machine")
    return found


def _unusable(found: str) -> SandboxError:
    return SandboxError(
        "no sandbox for generated code", found=found, expected="bubblewrap that can make name spaces", remedy=REMEDY
    )


def _interpreter() -> list[str]:
    """What bubblewrap is to bind so that this interpreter starts: itself, its standard library, shared libraries."""
    prefix, library = Path(sys.base_prefix), Path(os.__file__).parent
    whole = library if prefix == Path("/usr") else prefix / sys.platlibdir  # which may hold libraries of its own
    machine = sysconfig.get_config_var("MULTIARCH") or "none"
    system = [Path("/lib64"), Path("/usr/lib64"), Path("/lib", machine), Path("/usr/lib", machine)]
    bound = {path: path for path in (*system, *Path("/lib").glob("ld-linux*.so*")) if path.exists()}
    bound |= {
        Path(HOME, "bin/python3"): Path(sys.executable).resolve(),
        Path(INSIDE): Path(sandboxed.__file__).resolve(),
    }
    bound[_inside(whole, prefix)] = whole
    devices = [Path("/dev/null"), Path("/dev/zero"), Path("/dev/urandom")]
    folders = sorted({folder for path in (*bound, *devices) for folder in path.parents} - {Path("/")})
    arguments = [part for folder in folders for part in ("--perms", "0755", "--dir", str(folder))]
    arguments += [part for inside, path in bound.items() for part in ("--ro-bind", str(path), str(inside))]
    arguments += [part for device in devices for part in ("--dev-bind", str(device), str(device))]
    if (packages := library / "site-packages").is_dir():
        hidden = str(_inside(packages, prefix))
        arguments += ["--tmpfs", hidden, "--remount-ro", hidden]
    return arguments


def _inside(path: Path, prefix: Path) -> Path:
    return HOME / path.relative_to(prefix)


# ---------------------------------------------------------------- one program


def _job(program: Program) -> bytes:
    names = ("source", "checks", "prelude", "entry", "shared")
    return json.dumps({n: getattr(program, n) for n in names} | {"stdin": program.stdin.decode("latin-1")}).encode()


def _in_memory(content: bytes) -> IO[bytes]:
    """A file without a name, to be read from its start."""
    file = os.fdopen(os.memfd_create("job"), "w+b")
    file.write(content)
    file.seek(0)
    return file


def _watch(pid: int, pipes: dict[int, bytearray], heard: _Heard, limits: Limits) -> float:
    """Read the pipes until both are closed or a limit is reached; the seconds since the sandbox stood."""
    began = time.monotonic()
    ready, look = 0.0, began + WATCH
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and heard.reason is None:
            for key, _ in selector.select(WATCH):
                block = os.read(key.fd, 1 << 16)
                pipes[key.fd].extend(block)
                if not block:
                    selector.unregister(key.fd)
            now = time.monotonic()
            if not ready and heard.verdict.startswith(b"ready\n"):
                ready = now
            if now >= look:
                heard.reason, look = _excess(pid, limits), now + WATCH
            heard.reason = _late_or_loud(heard, now, ready + limits.seconds if ready else began + START, limits)
    return time.monotonic() - (ready or began)


def _late_or_loud(heard: _Heard, now: float, deadline: float, limits: Limits) -> Status | None:
    if len(heard.output) > limits.output or len(heard.verdict) > VERDICT:
        return "output"
    return "timeout" if now > deadline and heard.reason is None else heard.reason


def _excess(pid: int, limits: Limits) -> Status | None:
    """Whether all processes together hold too much memory, or there are too many files."""
    family = _descendants(pid)
    held = 0
    for one in family:
        with suppress(OSError, IndexError, ValueError):
            held += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if held > limits.memory:
        return "memory"
    with suppress(OSError):
        made = os.statvfs(f"/proc/{family[0]}/root/tmp") if family else None
        if made and made.f_files - made.f_ffree > limits.files:
            return "output"
    return None


def _descendants(pid: int) -> list[int]:
    """All processes below this one, the first of the sandbox first."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return found[1:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what still runs. Once the first process of a sandbox is gone, the kernel has ended all others."""
    if process.poll() is None:
        for one in _descendants(process.pid)[:1]:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
    try:
        process.wait(START)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _outcome(heard: _Heard, code: int, seconds: float, limits: Limits) -> Outcome:
    output, lines = bytes(heard.output[: limits.output]), heard.verdict.splitlines()
    if b"ready" not in lines:
        raise _unusable(output.decode(errors="replace")[-400:].strip() or f"bubblewrap ended with {code}")
    late = code in (128 + signal.SIGXCPU, 128 + signal.SIGKILL)
    found: dict[str, Any] = {"status": "timeout" if late else "crashed"}
    if heard.reason is not None:
        found = {"status": heard.reason}
    elif lines[-1].startswith(b"{"):
        found = json.loads(lines[-1])
    return Outcome(**found, output=output, seconds=round(seconds, 3), compiled=b"compiled" in lines)
