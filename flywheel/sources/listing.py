"""Which files of a directory a source reads, decided from names and sizes alone, without opening one."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flywheel.artifact import sha256
from flywheel.errors import SourceError

NEVER = {"site-packages", "dist-packages", "__pycache__", "node_modules"}
"""Directories that hold other people's packages or compiled files; hidden directories are left alone as well."""

READ = ""
"""The fate of a file that is read; any other fate is the reason for leaving it out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that a source meets."""

    path: Path
    name: str
    """Relative to the source, with forward slashes; bytes that are not UTF-8 are spelled out."""
    fate: str
    group: str = ""
    """What its rows belong to, where the source knows before it reads them."""
    context: str = ""
    """What stands for other bytes that its rows depend on, such as a table of captions beside it."""
    identity: str = ""
    """What it is, for a source without files; otherwise the bytes of the file say so."""


def listing(root: Path, judge: Callable[[str], str | None], max_bytes: int | None = None) -> list[Entry]:
    """Files below a directory in the order of their names. `judge` gives a name's fate, or None for no concern of ours.

    Links to directories are not followed; a link to a file outside `root` is `outside_root`, what is not a regular
    file `unreadable`, and a file above `max_bytes` `too_large`.
    """
    root = root.resolve()
    entries = []
    for directory, subdirectories, files in os.walk(root, onerror=_refuse):
        subdirectories[:] = [d for d in subdirectories if d not in NEVER and not d.startswith(".")]
        for file in files:
            path = Path(directory, file)
            name = printable(path.relative_to(root).as_posix())
            fate = judge(name)
            if fate is not None:
                entries.append(Entry(path, name, fate or _obstacle(path, root, max_bytes)))
    return sorted(entries, key=lambda entry: entry.name)


def digests(entries: Sequence[Entry], source: str) -> dict[str, str]:
    """`source/name` → sha256 of each file that is read, and of the list of all names with their fates."""
    found = {f"{source}/{e.name}": digest(e) for e in entries if e.fate == READ}
    names = "".join(f"{e.name}\0{e.fate}\0" for e in entries)
    found[f"{source}/ (list of files)"] = hashlib.sha256(names.encode()).hexdigest()
    return found


def digest(entry: Entry) -> str:
    """sha256 of the bytes of a file, or of what stands for them."""
    if entry.identity:
        return hashlib.sha256(entry.identity.encode()).hexdigest()
    try:
        status = entry.path.stat()
        return _digest(entry.path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except OSError:
        return "unreadable"


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a relative path matches one of some glob patterns, in which `**` stands for any number of directories."""
    whole = re.compile("|".join(map(_translate, patterns)) or r"(?!)")
    return lambda name: whole.fullmatch(name) is not None


def judged_by(include: Iterable[str], exclude: Iterable[str]) -> Callable[[str], str | None]:
    """The judge for `listing` that some glob patterns make: `excluded` for what is left out."""
    included, excluded = matcher(include), matcher(exclude)
    return lambda file: ("excluded" if excluded(file) else READ) if included(file) else None


def printable(name: str) -> str:
    """A file name as text that can be written anywhere."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _translate(pattern: str) -> str:
    pieces = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", pattern.removeprefix("./"), flags=re.DOTALL)
    return "".join(pieces.get(token) or (_one_of(token) if len(token) > 1 else re.escape(token)) for token in tokens)


def _one_of(token: str) -> str:
    """`[a-z]` as fnmatch reads it: without its frame `(?s:...)\\Z`."""
    return fnmatch.translate(token).removeprefix("(?s:").rpartition(")")[0]


def _obstacle(path: Path, root: Path, max_bytes: int | None) -> str:
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            return "outside_root"
        status = path.stat()
    except (OSError, RuntimeError):
        return "unreadable"
    if not stat.S_ISREG(status.st_mode):
        return "unreadable"
    return "too_large" if max_bytes is not None and status.st_size > max_bytes else READ


@lru_cache(maxsize=1 << 16)
def _digest(path: Path, *status: int) -> str:
    """Within one process a file whose inode was not touched (its change time cannot be set) is hashed once."""
    return sha256(path)


def _refuse(error: OSError) -> None:
    raise SourceError(
        f"directory {error.filename}",
        found=str(error.strerror),
        expected="a directory that can be listed",
        remedy="give yourself read permission or leave the directory out of the source",
    ) from error


def missing(written: str, path: Path, expected: str) -> SourceError:
    """The error for a source whose path is not what it should be."""
    return SourceError(
        f"source path {written}",
        found="a file" if path.is_file() else "a directory" if path.is_dir() else "nothing there",
        expected=expected,
        remedy=f"correct `path`; a relative path starts at {Path.cwd()}",
    )


def nothing(written: str, expected: str) -> SourceError:
    """The error for a source that holds no file of its kind."""
    return SourceError(
        f"source path {written}",
        found="no file to read",
        expected=f"files that match {expected}",
        remedy="point `path` at the files, or change what is read",
    )
