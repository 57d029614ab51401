"""What a parser that has been taken over might try. Each function gives the names of the attempts that succeeded.

Those that end in `_native` go around Python's audit events, as a library in C would.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Attempts = Mapping[str, Callable[[], object]]


def _succeeded(attempts: Attempts) -> list[str]:
    """Those that raised nothing and did not give -1, as C functions do where they fail."""
    found = []
    for name, attempt in attempts.items():
        with suppress(Exception):
            if attempt() != -1:
                found.append(name)
    return found


def _libc() -> Any:
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(
        "int socket(int, int, int); int fork(void); int kill(int, int); int open(const char *, int, int);"
        "int execv(const char *, char *const *); int mkfifo(const char *, int); int chmod(const char *, int);"
        "int symlink(const char *, const char *); int unlink(const char *); int ptrace(int, int, void *, void *);"
        "int system(const char *); int truncate(const char *, long); int mkdir(const char *, int);"
    )
    return ffi, ffi.dlopen(None)


def connect(port: int) -> list[str]:
    address = ("127.0.0.1", port)

    def datagram() -> object:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return sock.sendto(b"secret", address)

    def fetch() -> object:
        from urllib.request import urlopen

        return urlopen(f"http://127.0.0.1:{port}/", timeout=2)

    def xml() -> object:
        from lxml import etree

        parser = etree.XMLParser(no_network=False, load_dtd=True, resolve_entities=True)
        etree.fromstring(f"<!DOCTYPE a SYSTEM 'http://127.0.0.1:{port}/x.dtd'><a/>".encode(), parser)
        return -1  # whether it has asked, the server knows

    def arrow() -> object:
        from pyarrow import fs

        store = fs.S3FileSystem(anonymous=True, endpoint_override=f"127.0.0.1:{port}", scheme="http")
        return store.get_file_info("bucket/key")

    return _succeeded({
        "tcp": lambda: socket.create_connection(address, timeout=2),
        "datagram": datagram,
        "listen": lambda: socket.create_server(("127.0.0.1", 0)),
        "name": lambda: socket.getaddrinfo("localhost", 80),
        "urllib": fetch,
        "xml": xml,
        "arrow": arrow,
        "socket_native": lambda: _libc()[1].socket(2, 1, 0),
    })  # fmt: skip


def write(directory: str) -> list[str]:
    """`directory` is not the attacker's; it holds the file `sentinel`."""
    place = Path(directory)
    sentinel = place / "sentinel"

    def through(number: int) -> object:
        """By a name relative to an open directory, which audit events do not show."""
        opened = os.open(directory, os.O_RDONLY)
        return os.open(f"made{number}", os.O_CREAT | os.O_WRONLY, dir_fd=opened)

    def arrow() -> object:
        import pyarrow as pa
        from pyarrow import parquet

        return parquet.write_table(pa.table({"a": [1]}), str(place / "arrow"))

    def database() -> object:
        import sqlite3

        return sqlite3.connect(place / "database").execute("create table a(b)")

    def native(name: str, *arguments: Any) -> Callable[[], object]:
        return lambda: getattr(_libc()[1], name)(*arguments)

    path = os.fsencode(sentinel)
    return _succeeded({
        "open": lambda: (place / "made").write_text("x"),
        "append": lambda: sentinel.open("a"),
        "dir_fd": lambda: through(1),
        "remove": sentinel.unlink,
        "rename": lambda: sentinel.rename(place / "renamed"),
        "truncate": lambda: os.truncate(sentinel, 0),
        "chmod": lambda: sentinel.chmod(0o777),
        "utime": lambda: os.utime(sentinel, (0, 0)),
        "mkdir": lambda: (place / "made").mkdir(),
        "mkfifo": lambda: os.mkfifo(place / "fifo"),
        "mknod": lambda: os.mknod(place / "node"),
        "symlink": lambda: (place / "link").symlink_to("sentinel"),
        "hardlink": lambda: os.link(sentinel, place / "hardlink"),
        "arrow": arrow,
        "sqlite": database,
        "open_native": native("open", path, os.O_WRONLY | os.O_TRUNC, 0),
        "truncate_native": native("truncate", path, 0),
        "unlink_native": native("unlink", path),
        "symlink_native": native("symlink", b"sentinel", path + b".link"),
        "mkfifo_native": native("mkfifo", path + b".fifo", 0o600),
        "chmod_native": native("chmod", path, 0o777),
    })  # fmt: skip


def start(marker: str) -> list[str]:
    """Programs would make a file `marker`."""

    def executed() -> object:
        import _posixsubprocess  # what subprocess calls, without an audit event

        return _posixsubprocess.fork_exec(
            [b"/bin/touch"], [b"/bin/touch"], True, (), None, None, -1, -1, -1, -1, -1, -1, *os.pipe(), False, False,
            -1, None, None, None, -1, None, False
        )  # fmt: skip

    def processes() -> object:
        from multiprocessing import get_context

        process = get_context("fork").Process(target=print)
        process.start()
        return process

    return _succeeded({
        "subprocess": lambda: subprocess.run(["/bin/touch", marker]),
        "system": lambda: os.system(f"touch {marker}"),
        "fork": lambda: os.fork() or os._exit(0),
        "exec": lambda: os.execv("/bin/touch", ["touch", marker]),
        "spawn": lambda: os.posix_spawn("/bin/touch", ["touch", marker], {}),
        "multiprocessing": processes,
        "fork_exec": executed,
        "system_native": lambda: -1 if _libc()[1].system(b"touch " + marker.encode()) else 0,
        "fork_native": lambda: _libc()[1].fork() or os._exit(0),
    })  # fmt: skip


def harm(_: Any) -> list[str]:
    """Signals, tracing and limits of the worker and of others."""
    worker = os.getppid()
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    return _succeeded({
        "kill": lambda: os.kill(worker, signal.SIGKILL),
        "killpg": lambda: os.killpg(os.getpgid(worker), signal.SIGKILL),
        "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(worker), signal.SIGKILL),
        "kill_native": lambda: _libc()[1].kill(worker, 9),
        "kill_all_native": lambda: _libc()[1].kill(-1, 0),
        "ptrace_native": lambda: _libc()[1].ptrace(16, worker, _libc()[0].NULL, _libc()[0].NULL),
        "memory": lambda: os.open(f"/proc/{worker}/mem", os.O_RDWR),
        "memory_read": lambda: os.open(f"/proc/{worker}/mem", os.O_RDONLY),
        "limits": lambda: resource.setrlimit(resource.RLIMIT_AS, unlimited),
        "limits_of_worker": lambda: resource.prlimit(worker, resource.RLIMIT_NOFILE, (8, 8)),
        "oom": lambda: Path(f"/proc/{worker}/oom_score_adj").write_text("1000"),
    })  # fmt: skip


def environment(_: Any) -> list[str]:
    """What can be read of the environment of this process and of the worker."""
    texts = {"own": repr(dict(os.environ))}
    for name, pid in (("proc", "self"), ("worker", str(os.getppid()))):
        with suppress(OSError):
            texts[name] = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    return [name for name, text in texts.items() if "hunter2" in text]


def descriptors(_: Any) -> list[str]:
    """Files that were inherited, besides the three that lead nowhere and the answer's pipe."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [name for name in found if name != os.devnull and not name.startswith(("/proc/", "pipe:"))]


def pipes(_: Any) -> int:
    """How many pipes were inherited."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    return found


# ---------------------------------------------------------------- taking all there is


def take_files(_: Any) -> int:
    """Open files until that fails."""
    kept = []
    with suppress(OSError):
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    return len(kept)


def take_threads(_: Any) -> int:
    """Start threads until that fails."""
    wait, number = threading.Event(), 0
    with suppress(RuntimeError, MemoryError):
        while True:
            threading.Thread(target=wait.wait, daemon=True).start()
            number += 1
    return number


def take_disk(directory: str) -> None:
    """Write files of 8 MB, each below any limit of one file, as long as it goes."""
    number, block = 0, b"\1" * (8 << 20)
    while True:
        number += 1
        Path(directory, f"{number}").write_bytes(block)


def take_unnamed_disk(directory: str) -> None:
    """The same with files that no listing shows."""
    kept, block = [], b"\1" * (8 << 20)
    while True:
        path = Path(directory, "one")
        kept.append(path.open("wb"))
        kept[-1].write(block)
        kept[-1].flush()
        path.unlink()
        if len(kept) > 200:
            threading.Event().wait()


def take_inodes(directory: str) -> None:
    """Make empty files as long as it goes."""
    number = 0
    while True:
        number += 1
        Path(directory, f"{number}").touch()


def answer_much(size: int) -> str:
    return "x" * size


def answer_nonsense(_: Any) -> object:
    """What is no JSON."""
    return object()


def close_everything(_: Any) -> None:
    """Close the answer's pipe, and live on."""
    os.closerange(0, 1_000)
    threading.Event().wait()


def leave(directory: str) -> None:
    """Leave behind what a reader of the directory might stumble over."""
    with suppress(OSError):
        os.mkfifo(Path(directory, "000000.parquet"))
    with suppress(OSError):
        os.symlink(Path(directory, "a"), Path(directory, "000001.parquet"))
    Path(directory, "000002.parquet").mkdir()


def leave_setuid(directory: str) -> None:
    os.close(os.open(Path(directory, "tool"), os.O_CREAT | os.O_WRONLY, 0o4755))


def dig(directory: str) -> None:
    """Directories deeper than a recursive removal can follow."""
    path = Path(directory)
    for _ in range(1_900):
        path = path / "d"
        path.mkdir()


def dig_native(directory: str) -> None:
    """The same around Python's audit events."""
    libc = _libc()[1]
    path = os.fsencode(directory)
    for _ in range(1_900):
        path += b"/d"
        libc.mkdir(path, 0o700)


def nest(_: Any) -> None:
    """Use up the stack."""
    sys.setrecursionlimit(1 << 30)

    def deeper(number: int) -> int:
        return deeper(number + 1) + 1

    deeper(0)
