"""Checkpoints that survive a crash at any moment: written aside, described by sha256, fsynced, renamed.

A directory `checkpoint-N` is used only when every file in it matches its manifest, so a torn one costs the steps since
the one before it and never the run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from flywheel.artifact import publish, sha256

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
KEPT = 2
"""Newest checkpoints that are kept: where one is damaged, the other is continued."""


def save(
    root: Path,
    at: int,
    write: Callable[[Path], None],
    keep: Collection[int] = (),
    together: Callable[[], object] | None = None,
    leads: bool = True,
) -> Path:
    """Let `write` fill a directory for step `at` and publish it whole; the newest KEPT and the steps in `keep` stay.

    Where several processes write one checkpoint, all call this, `together` waits for all of them, and one `leads`.
    """
    wait = together or (lambda: None)
    target, aside = root / f"{PREFIX}{at}", root / f".{PREFIX}{at}"
    if leads:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    wait()
    write(aside)
    wait()
    if leads:
        files = {str(p.relative_to(aside)): sha256(p) for p in sorted(aside.rglob("*")) if p.is_file()}
        (aside / MANIFEST).write_text(json.dumps(files, indent=1))
        publish(aside, target)
        for old in all_in(root)[KEPT:]:
            if step(old) not in keep:
                shutil.rmtree(old)
    wait()
    return target


def newest(root: Path) -> tuple[int, Path] | None:
    """Step and directory of the newest checkpoint that is whole, or None. Torn ones are passed over."""
    for path in all_in(root):
        if whole(path):
            return step(path), path
    return None


def all_in(root: Path) -> list[Path]:
    """Directories of checkpoints, newest first, whole or not."""
    found = [p for p in root.glob(f"{PREFIX}*") if p.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=step, reverse=True)


def whole(path: Path) -> bool:
    """Whether every file of a checkpoint is there and as it was written."""
    try:
        files = json.loads((path / MANIFEST).read_text())
        return bool(files) and all(sha256(path / name) == digest for name, digest in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def step(path: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(path.name.removeprefix(PREFIX))
