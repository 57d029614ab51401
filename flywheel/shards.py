"""Shards: the rows of a dataset in pieces, each made once from what it depends on and kept under that key.

    CACHE/<key>/000000.parquet ...  rows that were kept
    CACHE/<key>/left.jsonl          rows that were not, one a line with its reason
    CACHE/<key>/shard.json          counts, and the sha256 of each file; written last
    CACHE/.making-*/                shards that are being made (flywheel.scratch)

A shard whose bytes are not as they were written is made again. Artifacts hold hard links to these files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flywheel import fingerprint
from flywheel.artifact import sha256
from flywheel.counts import Counts, left_out, line
from flywheel.record import Dropped, LeftOut, Outcome, Quarantined, Record, RowsWriter
from flywheel.scratch import scratch
from flywheel.workers import Mapper, Request, value

SHARD_BYTES = 32 << 20
"""Bytes of content in one Parquet file of a shard, about."""
FACTS, LEFT = "shard.json", "left.jsonl"
STAGING = ".making-"
"""How the names of directories begin in which shards are made."""


@dataclass(frozen=True)
class Shard:
    """A finished shard."""

    key: str
    path: Path
    facts: Mapping[str, Any]
    """What its maker says of it: `counts`, and more."""

    @property
    def rows(self) -> list[Path]:
        """Its files of rows, in order."""
        return sorted(self.path.glob("*.parquet"))

    @property
    def counts(self) -> Counts:
        return Counts.of(self.facts["counts"])


class Writer:
    """Writes the rows of a shard into a directory, in files of about SHARD_BYTES, and counts them."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.counts, self.bytes = directory, Counts(), 0
        self._files = 0
        self._rows: RowsWriter | None = None

    def __enter__(self) -> Writer:
        self._left = (self.directory / LEFT).open("w")
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()
        self._close()

    def write(self, row: Outcome) -> None:
        self.counts.add(row)
        if isinstance(row, LeftOut):
            self.leave_out(row)
        else:
            self.keep(row)

    def keep(self, row: Record) -> None:
        if self._rows is None:
            self._rows = RowsWriter(self.directory / f"{self._files:06d}.parquet")
            self._files += 1
        before = self._rows.bytes
        self._rows.write(row)
        self.bytes += self._rows.bytes - before
        if self._rows.bytes >= SHARD_BYTES:
            self._close()

    def leave_out(self, row: LeftOut) -> None:
        self._left.write(json.dumps(line(row)) + "\n")

    def _close(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None


class Cache:
    """Shards by key, in one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Shard | None:
        """The shard of this key, when every byte of it is as it was written."""
        path = self.root / key
        try:
            facts = json.loads((path / FACTS).read_text())
            sound = all(sha256(path / name) == digest for name, digest in facts["files"].items())
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        return Shard(key, path, facts) if sound else None

    @contextmanager
    def staging(self, number: int) -> Iterator[list[Path]]:
        """Empty directories to make shards in; in the end those are gone that were not published."""
        if not number:
            yield []
            return
        with scratch(self.root, STAGING) as place:
            drafts = [place / str(n) for n in range(number)]
            for draft in drafts:
                draft.mkdir()
            yield drafts

    def publish(self, key: str, draft: Path, facts: Mapping[str, Any]) -> Shard:
        """Describe what was made in a staging directory, and move it into place."""
        files = {p.name: sha256(p) for p in sorted(draft.iterdir())}
        written = {**facts, "files": files}
        (draft / FACTS).write_text(json.dumps(written))
        target = self.root / key
        try:
            draft.rename(target)
        except OSError:  # another run made the same, or a damaged one stands there
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
        return Shard(key, target, written)

    def noted(self, shard: Shard, **facts: Any) -> Shard:
        """The shard with more facts in its description."""
        written = {**shard.facts, **facts}
        draft = self.root / f".{uuid.uuid4().hex}.json"
        draft.write_text(json.dumps(written))
        draft.replace(shard.path / FACTS)
        return Shard(shard.key, shard.path, written)

    def make(self, wanted: Sequence[tuple[str, Request]], mapper: Mapper, what: str) -> list[Shard]:
        """The shards of these keys; those that are missing are made by their requests, side by side.

        A request's function gets `{"out": directory, ...}`, writes there, and returns the facts of the shard, to
        which the argument's `of`, the key of what it is made of, is added. Raises WorkerError where one fails.
        """
        found = {key: self.get(key) for key, _ in wanted}
        missing = {key: request for key, request in wanted if found[key] is None}
        with self.staging(len(missing)) as drafts:
            requests = [
                Request(r.function, {**r.argument, "out": str(draft)})
                for r, draft in zip(missing.values(), drafts, strict=True)
            ]
            for key, draft, answer in zip(missing, drafts, mapper(requests), strict=True):
                facts = {**value(answer, what), "of": missing[key].argument.get("of", "")}
                found[key] = self.publish(key, draft, facts)
        return [shard for key, _ in wanted if (shard := found[key]) is not None]


def key(*parts: Any) -> str:
    """32 hex digits over JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache
def code(*modules: str) -> str:
    """A mark of the source that some modules can reach, and of the libraries they lean on."""
    return fingerprint.fingerprint(fingerprint.of_source("", modules))


def link(files: Iterable[Path], directory: Path, start: int = 0) -> None:
    """Hard links to files of rows, numbered in their order; copies where the file system has no links."""
    directory.mkdir(exist_ok=True)
    for number, file in enumerate(files, start):
        target = directory / f"{number:06d}.parquet"
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)


def join_left(path: Path, shards: Iterable[Shard]) -> None:
    """Write the rows that shards left out into one file, one JSON object a line."""
    with path.open("wb") as file:
        for shard in shards:
            with (shard.path / LEFT).open("rb") as part:
                shutil.copyfileobj(part, file)


def read_left(path: Path) -> Iterator[Dropped | Quarantined]:
    """Rows that were left out, as `join_left` wrote them."""
    with path.open() as file:
        yield from map(left_out, map(json.loads, file))
