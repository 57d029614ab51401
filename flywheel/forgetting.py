"""Forgetting: everything in a store that holds a subject, and the tombstones that keep its rows out of later runs.

Rows are found by what they say (`flywheel.subject`), then by their ids: a row whose subject was masked, a varied copy,
or a pair for fine-tuning that was made from it, holds it too. The rows of a packed file lead to its snapshot.
"""

from __future__ import annotations

import fcntl
import shutil
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flywheel import artifact
from flywheel.artifact import Artifact
from flywheel.provenance import DATASETS, LISTS, Found
from flywheel.sources import tombstones
from flywheel.sources.tombstones import Tombstones
from flywheel.subject import Subject
from flywheel.subject_search import Search, parents

TRAINED, EVALUATED = ("train", "finetune_train"), ("heldout", "finetune_heldout")
"""Files of validated rows, by what they are used for."""
PACKED = (
    *(".bin", ".data", ".npy", ".onnx", ".safetensors", ".arrow", ".parquet"),
    *(".docx", ".gz", ".pdf", ".tar", ".tgz", ".xls", ".xlsx", ".zip"),
    *(".flac", ".gif", ".jpeg", ".jpg", ".mp3", ".ogg", ".opus", ".png", ".tif", ".tiff", ".wav", ".webp"),
)
"""Endings of files whose bytes say nothing: what is in them is known by the rows that they gave."""
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "vocabulary.json"})
"""Files of single words, in which any name would be found; they go with the model that they belong to."""


@dataclass
class Held:
    """A dataset that holds a subject."""

    artifact: Artifact
    rows: Counter[str] = field(default_factory=Counter)
    """Rows by file: `rows`, `train`, `heldout`, `finetune_train`, `quarantine`, ..."""
    left: int = 0
    """Lines about rows that were left out which say it."""
    files: list[str] = field(default_factory=list)
    """Other files that say it, such as Data Docs."""

    def number(self, files: Iterable[str]) -> int:
        return sum(self.rows[name] for name in files)


@dataclass
class Holding:
    """Everything that holds a subject."""

    rows: list[Found] = field(default_factory=list)
    """One for each row that was read and says it, or gave a row that does."""
    datasets: list[Held] = field(default_factory=list)
    derived: list[Artifact] = field(default_factory=list)
    """Artifacts that were made from rows of these datasets."""
    caches: list[Path] = field(default_factory=list)
    """Shards: they can be made again."""
    snapshots: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    """Files outside of the store."""
    unread: list[Path] = field(default_factory=list)
    """Damaged files."""
    under_way: list[str] = field(default_factory=list)
    """Steps that are being built, and may yet hold it: `prepare/<fingerprint>`."""
    tombstones: Tombstones = tombstones.NONE


def holding(store: Path, subject: Subject, elsewhere: Iterable[Path] = ()) -> Holding:
    """Look for a subject in every dataset and cache of a store, and in the plain files of directories `elsewhere`."""
    under_way = [f"{out.parent.name}/{out.name[1:-4]}" for out, free in _unfinished(store) if not free]
    search = Search(store, subject, quiet=not under_way)
    search.by_words()
    search.by_ids()
    result = Holding(
        rows=search.listed(),
        datasets=_datasets(search),
        caches=search.caches(),
        unread=sorted(search.unread),
        under_way=under_way,
        tombstones=search.stones(),
        files=[file for directory in elsewhere for file in _saying(directory, subject)],
    )
    result.snapshots = _snapshots(search, result.rows)
    result.derived = _derived(store, {h.artifact.fingerprint for h in result.datasets if h.number(TRAINED + EVALUATED)})
    return result


def forget(store: Path, found: Holding) -> bool:
    """Keep the rows out of all later runs and remove the caches that hold them; whether a tombstone is new.

    What crashed runs have left unfinished goes too. Artifacts, snapshots and models may be in use: they are the user's
    to remove.
    """
    before = tombstones.load(store)
    after = tombstones.add(store, found.tombstones)
    for path in found.caches:
        shutil.rmtree(path, ignore_errors=True)
    for out, free in _unfinished(store):
        if free:
            shutil.rmtree(out, ignore_errors=True)
    return after != before


def _datasets(search: Search) -> list[Held]:
    found = []
    for a in search.made:
        held = Held(a, left=sum(len(lines) for file, lines in search.left.items() if file.is_relative_to(a.path)))
        for file in search.held.keys() & {f for f, owner in search.owner.items() if owner is a}:
            held.rows[_split(a, file)] += len(search.held[file])
        held.files = [str(p.relative_to(a.path)) for p in _saying(a.path, search.subject) if p.name not in _LISTED]
        if held.rows or held.left or held.files:
            found.append(held)
    return found


def _snapshots(search: Search, rows: Iterable[Found]) -> list[Path]:
    """Snapshots with a file that gave one of these rows, or whose plain files say the subject."""
    bytes_of: defaultdict[str, set[str]] = defaultdict(set)
    for a in search.made:
        for name, digest in a.ingredients.items():
            if name.startswith("file:"):
                bytes_of[name.removeprefix("file:")].add(digest)
    gave = {(row.source, file) for row in rows if (file := _file(row, bytes_of)) is not None}
    found = []
    for snapshot in sorted(p for p in (search.store / ".snapshots").glob("*/*") if p.is_dir()):
        name = snapshot.parent.name.rpartition("-")[0]
        mine = [(f"{s}/{f}", snapshot / f) for s, f in gave if s.replace("/", "_") == name]
        same = any(path.is_file() and artifact.sha256(path) in bytes_of[key] for key, path in mine)
        if same or next(_saying(snapshot, search.subject), None):
            found.append(snapshot)
    return found


_LISTED = {name for names in LISTS.values() for name in names}


def _split(a: Artifact, file: Path) -> str:
    """`rows` of ingest/rows/000000.parquet, `train` of prepare/train/000000.parquet and of validate/train.parquet."""
    return file.stem if file.parent == a.path else file.parent.name


def _file(row: Found, known: Container[str]) -> str | None:
    """The file that a row was read from: its path, or a part of it before a colon."""
    path = row.path
    while path:
        if f"{row.source}/{path}" in known:
            return path
        path = path.rpartition(":")[0]
    return None


def _saying(directory: Path, subject: Subject) -> Iterator[Path]:
    """Plain files below a directory whose bytes say the subject."""
    for path in sorted(directory.rglob("*")):
        plain = path.suffix.lower() not in PACKED and path.name not in VOCABULARIES and path.is_file()
        if plain and subject.in_file(path):
            yield path


def _unfinished(store: Path) -> Iterator[tuple[Path, bool]]:
    """Directories in which a step was or is being built, and whether nobody does any more.

    While one is looked at, nobody can begin.
    """
    for out in sorted(store.glob("*/.*.out")):
        with out.with_suffix(".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                free = False
            yield out, free


def _derived(store: Path, fingerprints: set[str]) -> list[Artifact]:
    """Artifacts of later steps with one of these among their ancestors."""
    steps = sorted(p.name for p in store.iterdir() if p.is_dir() and p.name[0] != "." and p.name not in DATASETS)
    waiting = [a for step in steps for a in artifact.existing(store, step)]
    found: list[Artifact] = []
    while True:
        known = fingerprints | {a.fingerprint for a in found}
        more = [a for a in waiting if a not in found and known & parents(a)]
        if not more:
            return sorted(found, key=lambda a: a.created)
        found += more
