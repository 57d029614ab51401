"""One look through a store for the rows that hold a subject: by what they say, then by their ids.

A row whose subject was masked, a varied copy, or a pair for fine-tuning that was made from it, holds it too. Caches
of such rows are known by what their shards say they were made of.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel import artifact, rowscan
from flywheel.artifact import Artifact
from flywheel.process.passes import SKETCH
from flywheel.provenance import DATASETS, LISTS, Found, found_row, left_line
from flywheel.record import Record, texts
from flywheel.rowscan import TEXTS
from flywheel.shards import FACTS, LEFT
from flywheel.sources.tombstones import Tombstones, content_mark, text_mark
from flywheel.subject import Subject, spoken


class Search:
    """One look through a store."""

    def __init__(self, store: Path, subject: Subject, *, quiet: bool) -> None:
        """`quiet`: no run is under way, so that what is half made was left by a crash."""
        self.store, self.subject = store, subject
        self.made = [a for step in DATASETS for a in artifact.existing(store, step)]
        self.owner = {f: a for a in self.made for f in sorted(a.path.rglob("*.parquet"))}
        self.shards = Shards(store / ".shards", quiet=quiet)
        first = [a for a in self.made if a.step == "ingest"]
        followed = self.shards.made_of([*(mark for a in first for mark in a.files.values()), *self.shards.firsts()])
        self.alone = sorted(self.shards.facts.keys() - followed)
        """Shards that are not known to be made of what was read, which they are if another shard is found."""
        linked = {_inode(file) for file in self.owner}
        self.cached = [f for shard in self.alone for f in sorted(shard.glob("*.parquet")) if _inode(f) not in linked]
        """Their files, those that no artifact has."""
        self.said: list[tuple[Path, Record]] = []
        """Rows that say the subject, with their files."""
        self.left: dict[Path, list[Mapping[str, str]]] = {}
        """List of rows that were left out → its lines that say the subject."""
        self.held: defaultdict[Path, set[str]] = defaultdict(set)
        """File → ids of its rows that hold the subject."""
        self.ids: frozenset[str] = frozenset()
        here = {p for step in DATASETS for p in (store / step).glob("[!.]*") if p.is_dir()}
        self.unread: set[Path] = here - {a.path for a in self.made}

    def by_words(self) -> None:
        """Find the rows that say it.

        Validated rows are prepared ones, and these have the origins of what was read: nothing is looked at twice.
        """
        choose = rowscan.saying(self.subject)
        everything = [*self._files("ingest"), *self._files("prepare", False), *self._files("validate", False)]
        for files, columns in (([*everything, *self.cached], TEXTS), (self._files("prepare", True), TEXTS[:-1])):
            scan = rowscan.rows(files, columns, choose, whole=True)
            self.unread |= {*scan.unread}
            self.said += [(file, row) for file, row in scan.records() if self.subject.in_row(row)]
        for file, row in self.said:
            self.held[file].add(row.id)
        for file in self._lists():
            lines = [line for line in rowscan.left_out(file, choose) if self._says(line)]
            if lines:
                self.left[file] = lines
        left = {line["id"] for lines in self.left.values() for line in lines}
        self.ids = frozenset(left).union(*({row.id, _root(row)} for _, row in self.said))

    def by_ids(self) -> None:
        """Find the rows that hold it without saying it: by their ids, and by those of the rows they were made from."""
        with_parents = [*self._files("prepare"), *self._files("validate", False), *self.cached]
        self._hold(with_parents, ("id", "origin"), self.ids)
        self._hold(self._files("ingest"), ("id",), self.ids - self._said_by_sources().keys())
        self._hold(self._files("validate", True), ("id",), self.ids.union(*self.held.values()))

    def _hold(self, files: Sequence[Path], columns: Sequence[str], ids: frozenset[str]) -> None:
        if ids:
            scan = rowscan.rows(files, columns, rowscan.of_ids(ids), whole=False)
            self.unread |= {*scan.unread}
            for file, table in scan.tables.items():
                self.held[file] |= {*table["id"].to_pylist()}

    def _files(self, step: str, with_parent: bool | None = None) -> list[Path]:
        """Files of the artifacts of a step: of all, or of those whose parent is in the store, or is not."""
        here = {a.fingerprint for a in self.made}
        return [
            f
            for f, a in self.owner.items()
            if a.step == step and (with_parent is None or with_parent == bool(here & parents(a)))
        ]

    def _said_by_sources(self) -> dict[str, Record]:
        """The rows as they were read which say the subject, by id."""
        return {row.id: row for file, row in self.said if file in self.owner and self.owner[file].step == "ingest"}

    def _lists(self) -> Iterator[Path]:
        for a in self.made:
            yield from (file for name in LISTS.get(a.step, ()) if (file := a.path / name).exists())
        yield from (file for shard in self.alone if (file := shard / LEFT).exists())

    def _says(self, line: Mapping[str, str]) -> bool:
        return self.subject.in_text(line["path"]) or self.subject.in_text(line["detail"])

    @cached_property
    def _read(self) -> dict[str, Record]:
        """The rows as they were read which say the subject, or gave a row that does, by id."""
        found = self._said_by_sources()
        if missing := self.ids - found.keys():
            files = [file for file in self._files("ingest") if missing & self.held.get(file, set())]
            scan = rowscan.rows(files, ("id",), rowscan.of_ids(missing), whole=True)
            found |= {row.id: row for _, row in scan.records()}
        return found

    def listed(self) -> list[Found]:
        """Rows as they were read, then those of which only a cache is left, then those that were left out."""
        rows = dict(self._read)
        rows |= {row.id: row for _, row in self.said if _root(row) not in rows}
        found = {identity: found_row(row, "read", self.subject.excerpt(row)) for identity, row in rows.items()}
        for file, lines in self.left.items():
            step = self._step(file)
            for line in lines:
                found.setdefault(line["id"], left_line(step, line))
        return list(found.values())

    def _step(self, file: Path) -> str:
        return next((a.step for a in self.made if file.is_relative_to(a.path)), "a cached run")

    def stones(self) -> Tombstones:
        """Ids, texts and labels that say the subject, and whole contents where no text does."""
        said = {text for _, row in self.said for text in spoken(row, self.subject)}
        said |= {line["detail"] for lines in self.left.values() for line in lines if line["detail"]}
        silent = [row for row in self._read.values() if not any(map(self.subject.in_text, texts(row)))]
        return Tombstones(self.ids, frozenset(map(text_mark, said)), frozenset(map(content_mark, silent)))

    def caches(self) -> list[Path]:
        """Shards with a row or a line that holds the subject, what was made of them, and sketches that name a row."""
        held = {_inode(file) for file in self.held}
        found = {file.parent for file in self.left} & {*self.alone}
        found |= {shard for shard in self.alone if any(_inode(file) in held for file in shard.glob("*.parquet"))}
        found |= {s for s in self.alone if (s / SKETCH).exists() and self._in_sketch(s / SKETCH)}
        marks = {a.files[str(f.relative_to(a.path))] for f, a in self.owner.items() if f in self.held}
        return sorted(found | self.shards.made_of([*marks, *(m for shard in found for m in self.shards.marks(shard))]))

    def _in_sketch(self, file: Path) -> bool:
        """Whether a sketch names a row, a group or a label of the subject."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from flywheel.process.table import sketched

        wanted = pa.array(sorted(self.ids), pa.string())
        table = sketched(file)
        for column in table.columns:
            for chunk in column.chunks:
                values = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
                if pa.types.is_string(values.type):
                    mask = pc.or_(pc.is_in(values, value_set=wanted), self.subject.mask(values))
                    if pc.any(mask).as_py():
                        return True
        return False


class Shards:
    """The shards of a cache, and which were made of which."""

    def __init__(self, root: Path, *, quiet: bool) -> None:
        """`quiet`: also those that are not finished."""
        places = (p for p in root.glob("*") if p.is_dir() and (quiet or p.name[0] != "."))
        self.facts = {place: _facts(place / FACTS) for place in places}
        self._made_of: defaultdict[str, list[Path]] = defaultdict(list)
        for place, facts in self.facts.items():
            self._made_of[facts.get("of", "")].append(place)

    def firsts(self) -> Iterator[str]:
        """The marks of shards that were made of no other."""
        for place in self._made_of[""]:
            yield from self.marks(place)

    def marks(self, place: Path) -> Iterator[str]:
        """What a shard that is made of this one, or of one of its files, may have noted."""
        yield place.name
        for name, digest in self.facts[place].get("files", {}).items():
            yield from (digest, f"{place.name}/{name}")

    def made_of(self, marks: Iterable[str]) -> set[Path]:
        """All shards that were made, at whatever remove, of something with one of these marks."""
        found: set[Path] = set()
        waiting = [mark for mark in marks if mark]
        while waiting:
            for place in self._made_of.get(waiting.pop(), ()):
                if place not in found:
                    found.add(place)
                    waiting += self.marks(place)
        return found


def _facts(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _inode(file: Path) -> tuple[int, int] | None:
    """What hard links to one file have in common; None for a file that is gone by now."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _root(row: Record) -> str:
    """The id of the row that was read, from which this one was made or which it is."""
    return str(row.origin.get("parent", row.id))


def parents(a: Artifact) -> set[str]:
    return {mark for name, mark in a.ingredients.items() if name.startswith("parent:")}
