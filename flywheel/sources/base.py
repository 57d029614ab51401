"""Sources: where rows come from. `inputs` says which bytes would be read, `ingest` reads them.

Files are parsed in groups, each in a confined child process, and each group once: its rows stay in a shard under the
hash of its bytes, of the source's options and of the code that reads it. A file that its parser does not survive is
quarantined alone. Every file, line or table row that is met becomes exactly one Record, Dropped or Quarantined, so that
kept + dropped + quarantined = read. Rows come in the order of the sources, and within one in the order of file names.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, cast

from flywheel import shards
from flywheel.confinement import SECONDS, Answer, Caps
from flywheel.counts import Counts, line, most_common
from flywheel.errors import SourceError
from flywheel.recipe_sources import RemoteSource, Source
from flywheel.record import Dropped, LeftOut, Outcome, Outcomes, Quarantined, provenance_id, read_rows
from flywheel.sources import listing, tombstones
from flywheel.sources.listing import READ, Entry
from flywheel.workers import OUTSIDE, Mapper, Request, value

READERS = {
    "code": "flywheel.sources.code",
    "files": "flywheel.sources.files",
    "imagefolder": "flywheel.sources.media",
    "audiofolder": "flywheel.sources.media",
    "sklearn": "flywheel.sources.sklearn",
    "synthetic": "flywheel.sources.synthetic",
    "sql": "flywheel.sources.files",
    "rest": "flywheel.sources.files",
    "web": "flywheel.sources.pages",
    "huggingface": "flywheel.sources.files",
    "model": "flywheel.sources.files",
    "feedback": "flywheel.sources.files",
}
"""Source type → the module whose `reader(source, name, root)` reads it, or the snapshot that was fetched of it."""

GROUP_BYTES = 8 << 20
"""Small files are parsed together, up to about this many bytes."""
CUT = 4
"""In 256: how often a group ends at a file, whatever its size."""
PACE = 1_000_000
"""Bytes a second that a parser of a large file must manage."""
OUTPUT_FACTOR, OUTPUT_LEAST = 100, 256 << 20
"""A file may become this many times its size in rows, and always OUTPUT_LEAST bytes."""
DISK_FACTOR, DISK_LEAST, DISK_MOST = 300, 1 << 30, 32 << 30
"""What its parser may write, with the unpacked members of archives, in times its size; but these bytes in any case."""


NOT_READING = {"path", "weight", "count", "refresh", "include", "exclude", "max_bytes"}
"""Keys of a source that decide which files are read and not what becomes of one."""


TOO_SLOW = "parser_timeout"


class Reader(Protocol):
    """What a source module offers for one source of a recipe."""

    def entries(self) -> list[Entry]:
        """Every file that the source meets, in order. Raises SourceError where there is none."""

    def read(self, entry: Entry) -> Outcomes:
        """The rows of one file whose fate is READ; runs in a confined child process."""


@dataclass(frozen=True)
class Named:
    """A source under the name that its rows carry, and where its files are when they were fetched."""

    source: Source
    name: str
    root: Path | None

    def reader(self) -> Reader:
        module = import_module(READERS[self.source.type])
        return cast(Reader, module.reader(self.source, self.name, self.root))


@dataclass(frozen=True)
class Group:
    """Files of one source that are parsed together."""

    named: Named
    entries: tuple[Entry, ...]

    @property
    def key(self) -> str:
        """What its shard depends on."""
        source = self.named.source.model_dump(mode="json", exclude=NOT_READING)
        files = [
            (e.name, e.fate, e.group, e.context, listing.digest(e) if e.fate == READ else "") for e in self.entries
        ]
        return shards.key(self.named.name, source, files, shards.code(READERS[self.named.source.type], __name__))


def inputs(sources: Sequence[Source], roots: Mapping[str, Path] | None = None) -> dict[str, str]:
    """Name → sha256 of everything that `ingest` would read. Modification times play no part.

    `roots` says where fetched sources lie, by name. Raises SourceError where a source is missing or offers no file.
    """
    found: dict[str, str] = {}
    for named in named_sources(sources, roots or {}):
        if named.root is None and is_remote(named.source):
            found[f"{named.name}/ (snapshot)"] = "not fetched yet"
        else:
            found |= listing.digests(named.reader().entries(), named.name)
    return found


@dataclass(frozen=True)
class Ingest:
    """Where rows are read from and what must stay out of them."""

    sources: Sequence[Source]
    roots: Mapping[str, Path]
    """Name of a fetched source → directory of its snapshot."""
    cache: shards.Cache
    mapper: Mapper
    forgotten: tombstones.Tombstones = tombstones.NONE


def ingest(job: Ingest, out: Path) -> dict[str, Any]:
    """Read all sources into `out`/rows/*.parquet, and what was left out, with reasons, into `out`/left.jsonl.

    Returns read, kept, dropped and quarantined by reason, in total and by source, and bytes of kept content.
    Raises SourceError where nothing is kept.
    """
    done = list(parsed(job))
    names = named_sources(job.sources, job.roots)
    counts, size = Counts(named.name for named in names), 0
    for shard in done:
        counts.update(shard.counts)
        size += int(shard.facts["bytes"])
    total = counts.total()
    if not total.kept:
        raise SourceError(
            f"sources {', '.join(counts.sources)}",
            found=f"{total.read} rows, none of them usable: "
            + most_common((*total.dropped.items(), *total.quarantined.items())),
            expected="at least one usable row",
            remedy="look at the reasons; for missing_column, say with `columns` which column holds what",
        )
    shards.link((file for shard in done for file in shard.rows), out / "rows")
    shards.join_left(out / "left.jsonl", done)
    found = counts.as_json()
    for named in names:
        found["sources"][named.name] |= {"type": named.source.type, "license": named.source.license}
    return {**found, "bytes": size}


def named_sources(sources: Sequence[Source], roots: Mapping[str, Path]) -> list[Named]:
    """Sources under names that are free of machine paths: `stdlib`, `plays.txt`, `plays.txt#2`."""
    found: dict[str, Named] = {}
    for source in sources:
        base = name = source.name or _base_name(source)
        number = 1
        while name in found:
            number += 1
            name = f"{base}#{number}"
        found[name] = Named(source, name, roots.get(name))
    return list(found.values())


def is_remote(source: Source) -> bool:
    """Whether it must be fetched before it can be read."""
    return isinstance(source, RemoteSource) or str(getattr(source, "path", "")).startswith("s3://")


def _base_name(source: Source) -> str:
    for field in ("path", "model"):
        if isinstance(written := getattr(source, field, None), str):
            path = Path(written).expanduser()
            return path.name or path.resolve().name or "root"
    return source.type


def _groups(named: Named) -> Iterator[Group]:
    """Files together up to GROUP_BYTES. Where a group ends depends on the names, so that a file that is added or
    removed changes the group it belongs to and no other.
    """
    waiting: list[Entry] = []
    size = 0
    for entry in named.reader().entries():
        length = _size(entry)
        if waiting and size + length > GROUP_BYTES:
            yield Group(named, tuple(waiting))
            waiting, size = [], 0
        waiting.append(entry)
        size += length
        if size > GROUP_BYTES // 2 or hashlib.sha256(entry.name.encode()).digest()[0] < CUT:
            yield Group(named, tuple(waiting))
            waiting, size = [], 0
    if waiting:
        yield Group(named, tuple(waiting))


def _size(entry: Entry) -> int:
    try:
        return 0 if entry.fate != READ or entry.identity else entry.path.stat().st_size
    except OSError:
        return 0


# ---------------------------------------------------------------- parsing, side by side


def parsed(job: Ingest) -> Iterator[shards.Shard]:
    """A shard for each group of files, in order, from the cache or made now; none holds a row to be forgotten."""
    groups = [g for named in named_sources(job.sources, job.roots) for g in _groups(named)]
    found = _usable({group.key: job.cache.get(group.key) for group in groups}, job)
    missing = {group.key: group for group in groups if group.key not in found}
    with job.cache.staging(len(missing)) as places:
        drafts = dict(zip(missing, places, strict=True))
        answers = job.mapper([_request(group, drafts[key], job.forgotten) for key, group in missing.items()])
        for group in groups:
            if (shard := found.get(group.key)) is None:
                draft, answer = drafts[group.key], next(answers)
                if answer.fault in OUTSIDE:
                    value(answer, f"source {group.named.name}")
                facts = answer.value if not answer.fault else _one_by_one(group, draft, job, answer)
                facts = {**facts, "forgotten": job.forgotten.digest}
                shard = found[group.key] = job.cache.publish(group.key, draft, facts)
            yield shard


def _usable(found: Mapping[str, shards.Shard | None], job: Ingest) -> dict[str, shards.Shard]:
    """The shards at hand that hold no row to be forgotten, and lack none that was and is not any more.

    Each shard says under which tombstones it was made or looked at last, and is looked at once under others. One with
    a file that took too long is made again: the machine may have been busy.
    """
    mark = job.forgotten.digest
    whole = {k: s for k, s in found.items() if s is not None and TOO_SLOW not in s.counts.total().quarantined}
    usable = {k: s for k, s in whole.items() if s.facts.get("forgotten", "") == mark}
    older = {k: s for k, s in whole.items() if k not in usable}
    older = {k: s for k, s in older.items() if tombstones.REASON not in s.counts.total().dropped}
    argument = job.forgotten.as_json()
    requests = [
        Request(f"{__name__}:forgettable", {"shard": str(s.path), "forgotten": argument}) for s in older.values()
    ]
    for (key, shard), answer in zip(older.items(), job.mapper(requests), strict=True):
        if not value(answer, "rows to be forgotten"):
            usable[key] = job.cache.noted(shard, forgotten=mark)
    return usable


def forgettable(argument: Mapping[str, Any]) -> bool:
    """Whether a shard holds a row, or a line about one, that is to be forgotten."""
    shard, forgotten = Path(argument["shard"]), tombstones.Tombstones.of(argument["forgotten"])
    rows = (row for file in sorted(shard.glob("*.parquet")) for row in read_rows(file))
    return any(map(forgotten.hold, chain(rows, shards.read_left(shard / shards.LEFT))))


def _request(group: Group, draft: Path, forgotten: tombstones.Tombstones) -> Request:
    size = max(map(_size, group.entries))
    argument = {
        "source": group.named.source.model_dump(mode="json"),
        "name": group.named.name,
        "root": None if group.named.root is None else str(group.named.root),
        "entries": [{**asdict(e), "path": str(e.path)} for e in group.entries],
        "forgotten": forgotten.as_json(),
        "out": str(draft),
    }
    output = max(DISK_LEAST, min(DISK_MOST, DISK_FACTOR * size))
    caps = Caps(str(draft), seconds=max(SECONDS, size / PACE), output=output)
    return Request(f"{__name__}:parse", argument, caps)


def _one_by_one(group: Group, draft: Path, job: Ingest, answer: Answer) -> dict[str, Any]:
    """Parse the files of a group that failed each in a child of its own; those that fail again are quarantined."""
    alone = [Group(group.named, (entry,)) for entry in group.entries]
    counts, size = Counts(), 0
    with job.cache.staging(len(alone)) as places, (_emptied(draft) / shards.LEFT).open("w") as left:
        requests = [_request(g, place, job.forgotten) for g, place in zip(alone, places, strict=True)]
        again = len(alone) > 1 or answer.fault == "crashed"  # what was killed from outside may live the second time
        answers = list(job.mapper(requests)) if again else [answer]
        for one, place, found in zip(alone, places, answers, strict=True):
            if found.fault in OUTSIDE:
                value(found, f"source {one.named.name}: {one.entries[0].name}")
            if found.fault:
                row = job.forgotten.drop(_fallen(one, found))
                assert isinstance(row, LeftOut)
                counts.add(row)
                left.write(json.dumps(line(row)) + "\n")
            else:
                counts.update(Counts.of(found.value["counts"]))
                size += found.value["bytes"]
                left.write((place / shards.LEFT).read_text())
                shards.link(sorted(place.glob("*.parquet")), draft, len(list(draft.glob("*.parquet"))))
    return {"counts": counts.as_json(), "bytes": size}


def _fallen(group: Group, answer: Answer) -> Quarantined:
    """A file that its parser did not survive."""
    (entry,) = group.entries
    identity = provenance_id(group.named.name, entry.name, b"")
    return Quarantined(identity, f"parser_{answer.fault}", entry.name, group.named.name, answer.detail)


def _emptied(directory: Path) -> Path:
    for path in directory.iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return directory


# ---------------------------------------------------------------- in the confined child


def parse(argument: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the files of one group into the shard directory `out`; returns the facts of the shard."""
    from pydantic import TypeAdapter

    source: Source = TypeAdapter(Source).validate_python(argument["source"])
    root = argument["root"]
    named = Named(source, argument["name"], None if root is None else Path(root))
    reader, forgotten = named.reader(), tombstones.Tombstones.of(argument["forgotten"])
    with shards.Writer(Path(argument["out"])) as writer:
        for raw in argument["entries"]:
            entry = Entry(**{**raw, "path": Path(raw["path"])})
            limit = writer.bytes + max(OUTPUT_LEAST, OUTPUT_FACTOR * _size(entry))
            for row in rows(reader, named, entry):
                writer.write(forgotten.drop(row))
                if writer.bytes > limit:
                    raise MemoryError(f"{entry.name} became more than {limit} bytes of rows")
    return {"counts": writer.counts.as_json(), "bytes": writer.bytes}


def rows(reader: Reader, named: Named, entry: Entry) -> Iterator[Outcome]:
    """What becomes of one file: its rows, or the reason that it is not read."""
    if entry.fate != READ:
        kind = Quarantined if entry.fate in ("unreadable", "outside_root") else Dropped
        yield kind(provenance_id(named.name, entry.name, b""), entry.fate, entry.name, named.name)
        return
    for row in reader.read(entry):
        yield replace(row, source=named.name) if isinstance(row, LeftOut) and not row.source else row
