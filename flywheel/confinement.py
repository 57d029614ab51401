"""A function on foreign input, confined: in a fork with caps on memory, time and output, and without the right to
connect, to start programs or to write outside of its directory.

The caps are the kernel's (setrlimit), but for the bytes on the disk, which are counted a few times a second. The rights
are taken away twice: by an audit hook, which sees what Python code does and says so, and where the kernel is a Linux
that can, by Landlock and seccomp, which also bind native code. The fork inherits no file but its answer's pipe, and
none of the environment. Answers are JSON, never pickles.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from flywheel import landlock, seccomp
from flywheel.errors import disk_full

MEMORY, SECONDS = 850 << 20, 30.0
"""Bytes and seconds that a confined function may take."""
OUTPUT = 8 << 30
"""Bytes on the disk."""
ANSWER = 16 << 20
"""Bytes of an answer at most."""
ATTEMPTS = 20
FILES = 256
"""Files that are open at a time."""
WATCH = 0.2
"""Seconds between two looks at the disk."""
SCRATCH = ".scratch"
"""Where temporary files go, below the directory that may be written to."""


@dataclass(frozen=True)
class Caps:
    """What a confined function may take, and the one directory it may write to."""

    directory: str
    memory: int = MEMORY
    """Bytes of address space beyond what the worker itself has mapped."""
    seconds: float = SECONDS
    output: int = OUTPUT
    """Bytes of all files that it writes, temporary ones included."""


@dataclass(frozen=True)
class Answer:
    """What came of one request."""

    value: Any = None
    fault: str = ""
    """`timeout`, `memory`, `output`, `crashed`, `refused` (it tried what it may not) or `error`; empty for none."""
    detail: str = ""
    attempts: Sequence[str] = ()
    """What it tried and may not, whether or not it went on; the first ATTEMPTS of them."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """Memory of a fork at its largest, with what it shares with the worker; 0 for an open request."""


def run(raw: Mapping[str, Any]) -> Any:
    module, _, name = raw["function"].partition(":")
    function: Callable[[Any], Any] = getattr(import_module(module), name)
    return function(raw["argument"])


def confined(raw: Mapping[str, Any], caps: Caps) -> Answer:
    """Fork, and read the answer that the fork gives within its caps. Its temporary files are gone afterwards."""
    began = time.monotonic()
    scratch = Path(caps.directory, SCRATCH)
    scratch.mkdir(exist_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(raw, caps, writing)
    os.close(writing)
    try:
        said, fault = _listen(reading, child, caps)
    finally:
        os.close(reading)
        status, usage = _end(child)
        _remove(scratch)
    found = fault or _understood(said, status)
    if (strange := _strange(Path(caps.directory))) and not found.fault:
        found = Answer(fault="refused", detail=f"left {strange} behind")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return replace(found, seconds=round(time.monotonic() - began, 3), peak_bytes=peak)


# ---------------------------------------------------------------- the worker's side


def _listen(pipe: int, child: int, caps: Caps) -> tuple[bytes, Answer | None]:
    """What a fork says until it ends, or why it must be ended."""
    deadline, said = time.monotonic() + caps.seconds, bytearray()
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([pipe], [], [], min(left, WATCH))
        if ready:
            block = os.read(pipe, 1 << 16)
            if not block:
                return bytes(said), None
            said += block
            if len(said) > ANSWER:
                return b"", Answer(fault="output", detail=f"an answer of more than {ANSWER >> 20} MB")
        elif (size := _written(caps.directory, child)) > caps.output:
            return b"", Answer(fault="output", detail=f"{size >> 20} MB on the disk, {caps.output >> 20} are allowed")
    return b"", Answer(fault="timeout", detail=f"more than {caps.seconds:.0f} s")


def _end(child: int) -> tuple[int, resource.struct_rusage]:
    """End a fork, with all that it may have started, and return how it ended."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _understood(said: bytes, status: int) -> Answer:
    try:
        found = Answer(**json.loads(said))
    except (ValueError, TypeError, RecursionError):
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        fault = {int(signal.SIGXCPU): "timeout", int(signal.SIGXFSZ): "output"}.get(ended, "crashed")
        return Answer(fault=fault, detail=f"ended with status {status}")
    return found


def _written(directory: str, child: int) -> int:
    """Bytes on the disk below a directory, and of files without a name that a process has open. Each counts a block."""
    total = 0
    try:
        for base, _, files in os.walk(directory):
            for file in files:
                with suppress(OSError):
                    total += max(4_096, os.lstat(os.path.join(base, file)).st_blocks * 512)
    except RecursionError:
        return sys.maxsize
    with suppress(OSError), os.scandir(f"/proc/{child}/fd") as opened:
        for one in opened:
            with suppress(OSError):
                found = one.stat()
                total += found.st_blocks * 512 if found.st_nlink == 0 else 0
    return total


def _strange(directory: Path) -> str:
    """The name of something left behind that is no ordinary file, after its removal; "" where all is well."""
    found = ""
    for entry in os.scandir(directory):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISREG(mode) and not mode & (stat.S_ISUID | stat.S_ISGID):
            continue
        found = repr(entry.name)
        _remove(Path(entry)) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
    return found


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except RecursionError:  # Python follows about a thousand directories inside each other
        subprocess.run(["rm", "-rf", "--", directory], check=False)


# ---------------------------------------------------------------- the fork's side


def _child(raw: Mapping[str, Any], caps: Caps, answers: int) -> NoReturn:
    """The life of a fork; it never returns."""
    try:
        die_with_parent()
        os.setpgid(0, 0)
        _let_go(answers)
        scratch = os.path.join(caps.directory, SCRATCH)
        sys.dont_write_bytecode, tempfile.tempdir = True, scratch
        _forget_environment(scratch)
        _limit(caps)
        import_module(raw["function"].partition(":")[0])
        landlock.confine(caps.directory)
        seccomp.confine()
        guard = Guard(caps.directory)
        sys.addaudithook(guard)
        answer = replace(_attempt(raw), attempts=tuple(guard.attempts))
        with open(answers, "wb") as pipe:
            pipe.write(json.dumps(asdict(answer)).encode())
    finally:
        os._exit(0)


def _let_go(answers: int) -> None:
    """Close every file of the worker: its own answers, its requests, and what its libraries hold."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(3, answers)
    os.closerange(answers + 1, most if most > 0 else 1 << 20)


def _forget_environment(home: str) -> None:
    """Leave nothing of the environment: it may hold keys and passwords, and programs read settings from it."""
    os.environ.clear()
    os.environ.update({"HOME": home, "TMPDIR": home, "PATH": os.defpath, "LC_ALL": "C.UTF-8"})
    if sys.platform.startswith("linux"):  # /proc/self/environ still shows what the worker was started with
        import ctypes

        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[47]), int(fields[48])
        ctypes.memset(start, 0, end - start)


def _attempt(raw: Mapping[str, Any]) -> Answer:
    try:
        return Answer(run(raw))
    except MemoryError as error:
        return Answer(fault="memory", detail=str(error)[:200])
    except PermissionError as error:
        return Answer(fault="refused", detail=str(error)[:200])
    except Exception as error:
        return Answer(fault=word_for(error), detail=f"{type(error).__name__}: {error}"[:200])


def word_for(error: Exception) -> str:
    """The word for what went wrong."""
    if disk_full(error):
        return "disk_full"
    memory = isinstance(error, MemoryError) or type(error).__name__ == "ArrowMemoryError" or "bad_alloc" in str(error)
    return "memory" if memory else "error"


def _limit(caps: Caps) -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, limit in (
        (resource.RLIMIT_AS, mapped + caps.memory),
        (resource.RLIMIT_CPU, int(caps.seconds) + 1),
        (resource.RLIMIT_FSIZE, caps.output),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


FORBIDDEN = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
    "socket.gethostbyaddr", "socket.getnameinfo", "socket.sethostname", "subprocess.Popen", "os.system", "os.exec",
    "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.chdir", "os.chroot", "pty.spawn",
    "os.chmod", "os.chown", "ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle", "ctypes.call_function",
    "resource.setrlimit", "resource.prlimit", "sqlite3.connect", "syslog.openlog", "syslog.syslog",
)  # fmt: skip
"""Audit events of what a confined function never may do."""
CHANGES = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime", "os.setxattr",
    "os.removexattr", "shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.unpack_archive",
)  # fmt: skip
"""Audit events of changes to files, allowed inside of the directory alone."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DEPTH = 8
"""Directories inside each other that may be made."""


class Guard:
    """An audit hook that refuses connections, programs, and writing outside of `directory`."""

    def __init__(self, directory: str) -> None:
        self.directory, self.attempts = os.path.realpath(directory), list[str]()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & WRITING and self._outside(arguments[0]):
            self._refuse(f"writing to {arguments[0]!r}")
        if event in FORBIDDEN:
            self._refuse(event)
        if event in CHANGES and any(self._outside(path) for path in _paths(event, arguments)):
            self._refuse(f"{event} {arguments!r}")

    def _refuse(self, what: str) -> NoReturn:
        if len(self.attempts) < ATTEMPTS:
            self.attempts.append(what[:200])
        raise PermissionError(what)

    def _outside(self, path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return False
        real = os.path.realpath(os.fsdecode(path))
        if real in (os.devnull, self.directory):
            return False
        return not real.startswith(self.directory + os.sep) or real.count(os.sep) > self.directory.count(os.sep) + DEPTH


def _paths(event: str, arguments: tuple[Any, ...]) -> list[str | bytes]:
    """The paths among the arguments of an event. `shutil.rmtree` removes names relative to directories it has open."""
    if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:
        return [os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), os.fsdecode(arguments[0]))]
    return [path for path in arguments if isinstance(path, str | bytes)]


def die_with_parent() -> None:
    """Ask the kernel for a kill when the parent is gone (Linux); elsewhere the closed pipe ends the worker."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
