"""Files of JSON lines that only grow: several threads and processes may append, and a kill leaves whole lines.

A line that was torn all the same is as if it were not there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def append(file: Path, *entries: Any) -> None:
    """Append entries; they are on the disk when this returns. They begin a line of their own, whatever was torn."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = b"".join(json.dumps(entry, sort_keys=True).encode() + b"\n" for entry in entries)
    with file.open("ab+") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        size = out.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(out.fileno(), 1, size - 1) != b"\n"
        out.write(b"\n" + line if torn else line)
        out.flush()
        os.fsync(out.fileno())


def read(file: Path) -> Iterator[Any]:
    """The entries of a file; none where there is no such file."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue


def pairs(file: Path) -> Iterator[tuple[str, Any]]:
    """The entries that are a name and a value; one of any other shape is as if it were not there."""
    for entry in read(file):
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str):
            yield entry[0], entry[1]
