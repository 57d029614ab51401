"""Checkpoints that survive a crash at any moment: written aside, described by sha256, fsynced, renamed.

A directory `checkpoint-N` is used only when every file in it matches its manifest, so a torn one costs the steps since
the one before it and never the run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from flywheel.artifact import publish, sha256

MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"


def save(root: Path, step: int, write: Callable[[Path], None], keep: int = 2) -> Path:
    """Let `write` fill a directory for this step, publish it whole, and keep only the newest `keep` checkpoints."""
    target, aside = root / f"{_PREFIX}{step}", root / f".{_PREFIX}{step}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    files = {str(p.relative_to(aside)): sha256(p) for p in sorted(aside.rglob("*")) if p.is_file()}
    (aside / MANIFEST).write_text(json.dumps(files, indent=1))
    publish(aside, target)
    for old in _numbered(root)[keep:]:
        shutil.rmtree(old)
    return target


def newest(root: Path) -> tuple[int, Path] | None:
    """Step and directory of the newest checkpoint that is whole, or None. Torn ones are passed over."""
    for path in _numbered(root):
        if _whole(path):
            return _step(path), path
    return None


def _numbered(root: Path) -> list[Path]:
    found = [p for p in root.glob(f"{_PREFIX}*") if p.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _whole(path: Path) -> bool:
    try:
        files = json.loads((path / MANIFEST).read_text())
        return bool(files) and all(sha256(path / name) == digest for name, digest in files.items())
    except (OSError, ValueError, AttributeError):
        return False
