"""artifact.json beside every output, written last: what it is, what it was made from, and the sha256 of every file.

A directory with a valid artifact.json is whole; anything else is not there. Outputs are made in a staging directory,
fsynced, described, and renamed into place, so that a crash leaves the old, the new or nothing, never half. The layout:

    STORE/<step>/<fingerprint>/          finished
    STORE/<step>/.<fingerprint>.out/     being written; emptied at the start of each attempt
    STORE/<step>/.<fingerprint>.work/    checkpoints and scratch; survives a crash, removed when the step is finished
    STORE/<step>/.<fingerprint>.lock     held (flock) by the process that builds; the kernel releases it at its death
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywheel.errors import ArtifactError

FILE = "artifact.json"


@dataclass(frozen=True)
class Artifact:
    """One finished output."""

    step: str
    fingerprint: str
    recipe: str
    """Name of the recipe that made it."""
    created: str
    """UTC, ISO 8601."""
    ingredients: Mapping[str, str]
    """Everything that the fingerprint is made from: `parent:prepare`, `recipe:train.max_steps`, `module:...`, ..."""
    summary: Mapping[str, Any]
    """Small JSON that the step returned: counts, metrics, decisions."""
    files: Mapping[str, str]
    """Relative path → sha256."""
    path: Path = field(compare=False, default=Path())


@dataclass(frozen=True)
class Building:
    """The directories of a step that is being built."""

    out: Path
    """Empty; its content becomes the artifact."""
    work: Path
    """Kept between attempts: checkpoints belong here."""


def location(store: Path, step: str, fingerprint: str) -> Path:
    """Where the finished artifact stands."""
    return store / step / fingerprint


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def load(directory: Path) -> Artifact:
    """Read artifact.json, whose seal must fit, without checking the files beside it. Raises ArtifactError."""
    try:
        raw = json.loads((directory / FILE).read_text())
        seal = raw.pop("seal", None)
        if seal != _seal(raw) or raw["fingerprint"] != directory.name:
            raise ValueError(f"{FILE} does not match its seal")
        return Artifact(**{**raw, "path": directory})
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ArtifactError(
            f"artifact {directory}", found=str(error), expected=f"a sound {FILE}", remedy="run the recipe again"
        ) from error


def _seal(record: Mapping[str, Any]) -> str:
    """sha256 of a record in a fixed spelling."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def damage(artifact: Artifact) -> str | None:
    """What is wrong with the files of an artifact, or None: a missing, changed or added file."""
    present = {str(p.relative_to(artifact.path)) for p in artifact.path.rglob("*") if p.is_file()} - {FILE}
    for name, digest in artifact.files.items():
        if name not in present:
            return f"{name} is missing"
        if sha256(artifact.path / name) != digest:
            return f"{name} does not match its sha256"
    extra = sorted(present - set(artifact.files))
    return f"{extra[0]} was added" if extra else None


def intact(directory: Path) -> Artifact | None:
    """The artifact in a directory, when it is there and every byte of it is as it was written."""
    try:
        found = load(directory)
    except ArtifactError:
        return None
    return None if damage(found) else found


def existing(store: Path, step: str) -> list[Artifact]:
    """All readable artifacts of a step, newest first."""
    found = []
    for file in (store / step).glob(f"*/{FILE}"):
        try:
            found.append(load(file.parent))
        except ArtifactError:
            continue
    return sorted(found, key=lambda a: a.created, reverse=True)


@contextmanager
def locked(store: Path, step: str, fingerprint: str) -> Iterator[Building]:
    """Become the only builder of a step, waiting for another one to finish or die."""
    parent = store / step
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / f".{fingerprint}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        building = Building(parent / f".{fingerprint}.out", parent / f".{fingerprint}.work")
        shutil.rmtree(building.out, ignore_errors=True)
        building.out.mkdir()
        building.work.mkdir(exist_ok=True)
        try:
            yield building
        finally:
            for unused in (building.out, building.work):
                with suppress(OSError):
                    unused.rmdir()


def commit(
    building: Building, *, target: Path, recipe: str, ingredients: Mapping[str, str], summary: Mapping[str, Any]
) -> Artifact:
    """Describe, fsync and rename what was built; a damaged predecessor is replaced."""
    files = {str(p.relative_to(building.out)): sha256(p) for p in sorted(building.out.rglob("*")) if p.is_file()}
    artifact = Artifact(
        step=target.parent.name,
        fingerprint=target.name,
        recipe=recipe,
        created=datetime.now(UTC).isoformat(),
        ingredients=dict(ingredients),
        summary=dict(summary),
        files=files,
        path=target,
    )
    raw = {k: v for k, v in asdict(artifact).items() if k != "path"}
    raw = json.loads(json.dumps(raw))  # as it will be read back
    (building.out / FILE).write_text(json.dumps({**raw, "seal": _seal(raw)}, indent=1, sort_keys=True))
    publish(building.out, target)
    shutil.rmtree(building.work, ignore_errors=True)
    return artifact


def publish(draft: Path, target: Path) -> None:
    """Make a finished directory durable and move it into place, instead of what may stand there."""
    for path in (*draft.rglob("*"), draft):
        _fsync(path)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _fsync(target.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file durably in one move."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    _fsync(draft)
    draft.rename(path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
