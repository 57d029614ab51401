"""Runs hostile files through `flywheel.sources.base.ingest` with real worker processes, and watches what happens."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from flywheel import shards
from flywheel.confinement import Answer
from flywheel.recipe_sources import Source
from flywheel.record import read_rows
from flywheel.sources.base import Ingest, ingest
from flywheel.workers import Pool, Request
from tests.hostile.cases import MARK, Case
from tests.hostile.corpus_media import picture, recording

ROOT = Path(__file__).parents[2]
FINE: dict[str, tuple[str, bytes]] = {
    "files": ("fine.txt", b"An honest text."),
    "web": ("fine.html", b"<html><body><main><p>An honest page.</p></main></body></html>"),
    "code": ("fine.py", b"print('honest')\n"),
    "imagefolder": ("fine.png", picture("PNG")),
    "audiofolder": ("fine.wav", recording("WAV")),
}
"""Type of source → an honest file beside the hostile ones, whose row must come through."""


_SITE = "https://example.org/"


@dataclass
class Result:
    """What came of a directory of hostile files."""

    outcomes: Counter[str]
    """Rows by `kept` or the reason why they were not, without the honest one."""
    by_file: dict[str, Counter[str]]
    answers: list[Answer]
    strays: list[str]
    """Files that were made, changed or removed where nobody may."""
    asked: int
    """Connections to the test's server."""
    texts: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return max(answer.seconds for answer in self.answers)

    @property
    def peak_bytes(self) -> int:
        return max(answer.peak_bytes for answer in self.answers)

    @property
    def attempts(self) -> list[str]:
        return [attempt for answer in self.answers for attempt in answer.attempts]


class Runner:
    """A place with a home, a working directory and a directory for temporary files that must stay as they are."""

    def __init__(self, place: Path, pool: Pool, server: socket.socket) -> None:
        self.place, self.pool, self.server = place, pool, server
        self.answers: list[Answer] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def run(self, **cases: Case) -> Result:
        """Some hostile files of one type of source, each in a directory of its name; the files of a crawl beside each
        other.
        """
        data = self.fresh()
        for name, case in cases.items():
            path = data / f"{name}.html" if case.source == "web" else data / name / case.file
            path.parent.mkdir(exist_ok=True)
            case.write(path, self.url)
        (kind,) = {case.source for case in cases.values()}
        return self.ingest(kind, data)

    def fresh(self) -> Path:
        """An empty directory for hostile files."""
        data = self.place / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        return data

    def ingest(self, kind: str, data: Path) -> Result:
        """Read a directory of hostile files, to which an honest one is added."""
        name, honest = FINE[kind]
        (data / name).write_bytes(honest)
        source, roots = self._source(kind, data)
        before = self._state()
        self.answers = []
        try:
            job = Ingest([source], roots, shards.Cache(self.place / "cache"), self._map)
            (self.place / "out").mkdir()
            counts = ingest(job, self.place / "out")
            return self._result(counts, name, before)
        finally:
            shutil.rmtree(self.place / "out", ignore_errors=True)
            shutil.rmtree(self.place / "cache", ignore_errors=True)

    def _source(self, kind: str, data: Path) -> tuple[Source, dict[str, Path]]:
        raw: dict[str, Any] = {"type": kind, "path": str(data)}
        roots = {}
        if kind == "web":
            raw, roots = {"type": "web", "urls": [_SITE], "name": "web"}, {"web": data}
            pages = [{"url": _SITE + p.name, "file": p.name, "license": ""} for p in data.iterdir()]
            (data / "index.jsonl").write_text("".join(f"{json.dumps(page)}\n" for page in pages))
            (data / "fetched.json").write_text("{}")
        if kind in ("code", "imagefolder", "audiofolder"):
            raw["max_bytes"] = 4 << 30
        source: Source = TypeAdapter(Source).validate_python(raw)
        return source, roots

    def _map(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for answer in self.pool(requests):
            self.answers.append(answer)
            yield answer

    def _result(self, counts: Mapping[str, Any], honest: str, before: dict[str, Any]) -> Result:
        out = self.place / "out"
        rows = list(read_rows(out / "rows"))
        left = list(shards.read_left(out / "left.jsonl"))
        assert counts["read"] == counts["kept"] + sum(counts["dropped"].values()) + sum(counts["quarantined"].values())
        assert (counts["kept"], counts["read"]) == (len(rows), len(rows) + len(left))
        assert sum(honest in str(row.origin["path"]) for row in rows) == 1, "the honest file is lost"
        found: list[tuple[str, str]] = [(str(row.origin["path"]), "kept") for row in rows]
        found = [(path, what) for path, what in found if honest not in path] + [(row.path, row.reason) for row in left]
        by_file: dict[str, Counter[str]] = {}
        for path, what in found:
            by_file.setdefault(path.removeprefix(_SITE).partition(":")[0], Counter())[what] += 1
        after = self._state()
        strays = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        texts = [text for row in rows for text in (row.text, row.label, str(dict(row.origin))) if text]
        return Result(Counter(what for _, what in found), by_file, self.answers, strays, self._asked(), texts)

    def _state(self) -> dict[str, Any]:
        """Everything that parsers must leave alone, with its size and times."""
        found = {}
        for base in ("home", "work", "temporary", "data"):
            for path in (self.place / base, *(self.place / base).rglob("*")):
                status = path.lstat()
                found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
        for base in ("/", "/tmp", "/var/tmp", "/dev/shm", str(self.place.parent), os.path.expanduser("~")):
            found |= {name: True for name in os.listdir(base) if MARK in name}
        return found

    def _asked(self) -> int:
        number = 0
        while True:
            try:
                self.server.accept()[0].close()
            except BlockingIOError:
                return number
            number += 1


@contextmanager
def runner(place: Path, workers: int = 1) -> Iterator[Runner]:
    """A runner whose workers see its home, working directory and directory for temporary files."""
    for name in ("home", "work", "temporary"):
        (place / name).mkdir()
        (place / name / "sentinel").write_text("as it was")
    changed = {"HOME": "home", "TMPDIR": "temporary", "PYTHONPATH": str(ROOT)}
    old, here = {name: os.environ.get(name) for name in changed}, os.getcwd()
    os.environ.update({name: str(place / value) for name, value in changed.items()})
    os.chdir(place / "work")
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, Pool(workers) as pool:
            server.setblocking(False)
            yield Runner(place, pool, server)
    finally:
        os.chdir(here)
        for name, value in old.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
