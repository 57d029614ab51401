"""Snapshots: what was fetched of remote sources, as plain files that the readers of files take it from.

    STORE/.snapshots/<source>/<digest>/   files of one snapshot; immutable
    STORE/.snapshots/<source>/latest      the digest of the newest one

A snapshot is named by the hash of its bytes: a source that gives the same again makes no new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flywheel import shards
from flywheel.artifact import publish, sha256
from flywheel.recipe_sources import Source
from flywheel.scratch import scratch
from flywheel.sources.base import Named, is_remote, named_sources

NOT_CONTENT = "fetched.json"
"""The file of a snapshot that may differ while its content is the same: when and how each part was fetched."""


def roots(store: Path, sources: Sequence[Source]) -> dict[str, Path]:
    """Name → directory of the newest snapshot, of each remote source that has one."""
    found = {named.name: latest(store, named) for named in remote(sources)}
    return {name: path for name, path in found.items() if path is not None}


def remote(sources: Sequence[Source]) -> list[Named]:
    """The sources that must be fetched."""
    return [named for named in named_sources(sources, {}) if is_remote(named.source)]


def latest(store: Path, named: Named) -> Path | None:
    """The newest snapshot of a source, if there is one."""
    place = _place(store, named)
    try:
        path = place / (place / "latest").read_text()
    except OSError:
        return None
    return path if path.is_dir() else None


def take(store: Path, named: Named, fetch: Callable[[Path, Path | None], Mapping[str, Any]]) -> dict[str, Any]:
    """Fetch a source into a new snapshot. `fetch(into, previous)` fills a directory and says what it did.

    Returns that with `digest` and `changed`. A crash leaves the newest snapshot as it was.
    """
    place, previous = _place(store, named), latest(store, named)
    place.mkdir(parents=True, exist_ok=True)
    with scratch(place, ".fetching-") as work:
        draft, pointer = work / "snapshot", work / "latest"
        draft.mkdir()
        summary = dict(fetch(draft, previous))
        digest = content_digest(draft)
        if not (place / digest).is_dir():
            publish(draft, place / digest)
        pointer.write_text(digest)
        os.replace(pointer, place / "latest")
    return {**summary, "name": named.name, "digest": digest, "changed": previous is None or previous.name != digest}


def content_digest(directory: Path) -> str:
    """16 hex digits over the names and bytes of all files but NOT_CONTENT and those in hidden directories."""
    files = {
        str(p.relative_to(directory)): sha256(p)
        for p in sorted(directory.rglob("*"))
        if p.is_file()
        and p.name != NOT_CONTENT
        and not any(d.startswith(".") for d in p.relative_to(directory).parts[:-1])
    }
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def _place(store: Path, named: Named) -> Path:
    source = named.source.model_dump(mode="json", exclude={"weight", "refresh", "license", "columns", "name"})
    return store / ".snapshots" / f"{named.name.replace('/', '_')}-{shards.key(source)[:12]}"
