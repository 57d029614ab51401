"""Directories for work in progress. They end with the work; what a killed process leaves goes when the next one starts.

Each holds a file that its process has locked (flock) for as long as it lives, as the kernel sees to. Whoever makes the
next directory beside it removes those whose lock is free.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = ".lock"


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A directory in `parent` whose name begins with `prefix`, for the time of the context."""
    for path in parent.glob(f"{prefix}*"):
        _remove_if_left(path)
    path, lock = _claimed(parent, prefix)
    with lock:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _claimed(parent: Path, prefix: str) -> tuple[Path, IO[str]]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):  # another process took it for one that was left, before it was locked
            lock = (path / LOCK).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock.fileno()), (path / LOCK).stat()):
                return path, lock
            lock.close()


def _remove_if_left(path: Path) -> None:
    with suppress(OSError):  # it is in use, somebody else's, no such directory, or gone by now
        if path.lstat().st_uid != os.geteuid():
            return
        with (path / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
