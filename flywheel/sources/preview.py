"""A look at one source: its first rows, the type of row that they are, and what is good or bad about them."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from flywheel import recipe_file, shards
from flywheel.confinement import Caps
from flywheel.errors import RecipeError
from flywheel.recipe_sources import Source
from flywheel.record import COLUMNS, STRUCTURED, LeftOut, Quarantined, Record, content, provenance_id, read_rows, texts
from flywheel.sources.base import Named, rows
from flywheel.sources.columns import row_type
from flywheel.sources.listing import Entry
from flywheel.workers import OUTSIDE, Mapper, Request, value

SHOWN, LOOKED_AT = 5, 1_000
"""Rows that are printed, and rows that the summary is made from."""
BYTES = 32 << 20
"""Content of the rows of one request, about; then no more are looked at."""
FILES = 50
"""Files that are parsed together."""
CELL, SEARCHED = 300, 20_000
"""Characters of a cell that are shown, and of a row that are searched for identifiers."""
KINDS = {
    "imagefolder": {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"},
    "audiofolder": {".wav", ".flac", ".ogg", ".mp3"},
    "code": {".py", ".js", ".ts", ".java", ".c", ".cpp", ".go", ".rs"},
}
"""Type of source → endings of the files that most of a directory is made of."""
LITTLE = {
    "sql": ("max_rows", LOOKED_AT + 1),
    "huggingface": ("max_rows", LOOKED_AT + 1),
    "synthetic": ("count", LOOKED_AT + 1),
    "rest": ("max_pages", 2),
    "web": ("max_pages", 5),
    "model": ("count", 5),
}
"""Type of source → the key that limits how much is fetched or made, and how much is enough."""


def source(written: str) -> Source:
    """The source that a user means: a path, `s3://...`, or a source as a recipe writes it (`{type: sql, ...}`)."""
    adapter: TypeAdapter[Source] = TypeAdapter(Source)
    try:
        if written.lstrip().startswith("{"):
            return adapter.validate_python(yaml.safe_load(written))
        return adapter.validate_python(_guessed(written))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        inside: ErrorDetails = {**detail, "loc": ("data", "sources", 0, *detail["loc"])}
        told = recipe_file.explain(inside, lambda loc: ".".join(["source", *map(str, loc[4:])]))
        remedy = told.remedy or "`flywheel schema` lists the types and their keys"
        raise RecipeError(told.thing, found=told.found, expected=told.expected, remedy=remedy) from None
    except yaml.YAMLError as error:
        raise _no_source(written, str(error)) from None


def _no_source(written: str, found: str) -> RecipeError:
    return RecipeError(
        f"source {written[:80]}",
        found=found,
        expected="a path, s3://bucket/prefix, or {type: ..., ...} as under data.sources",
        remedy="`flywheel schema` lists the types and their keys",
    )


def _guessed(path: str) -> dict[str, Any]:
    root = Path(path).expanduser()
    if root.is_dir():
        endings = Counter(p.suffix.lower() for p in islice(root.rglob("*"), 10_000) if p.is_file())
        for kind, own in KINDS.items():
            if sum(endings[e] for e in own) > endings.total() / 2:
                include = {"include": [f"**/*{e}" for e in sorted(own & set(endings))]} if kind == "code" else {}
                return {"type": kind, "path": path, **include}
    return {"type": "files", "path": path}


def a_little(whole: Source) -> Source:
    """The source, limited to what is enough for a look where it can be."""
    if whole.type not in LITTLE:
        return whole
    key, most = LITTLE[whole.type]
    return whole.model_copy(update={key: min(getattr(whole, key) or most, most)})


# ---------------------------------------------------------------- looking


@dataclass
class Look:
    """What was seen of a source."""

    rows: list[Record] = field(default_factory=list)
    shown: list[dict[str, str]] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)
    more: bool = False
    """Whether there is more than that."""

    @property
    def number(self) -> int:
        return len(self.rows) + len(self.left)


def look(named: Named, scratch: Path, mapper: Mapper) -> Look:
    """The first LOOKED_AT rows, read in confined children that stop there. Files are not hashed, nothing is kept.

    Raises WorkerError where the machine fails.
    """
    found, entries = Look(), named.reader().entries()
    waiting = deque(entries[start : start + FILES] for start in range(0, len(entries), FILES))
    while waiting and not found.more:
        batch, place = waiting.popleft(), scratch / f"look-{len(waiting)}-{found.number}-{len(found.left)}"
        place.mkdir(parents=True)
        (answer,) = mapper([_request(named, batch, place, found)])
        if not answer.fault:
            found.shown += answer.value["shown"]
            found.more = answer.value["more"] or (found.number >= LOOKED_AT and bool(waiting))
            found.rows += (row for file in sorted(place.glob("*.parquet")) for row in read_rows(file))
            found.left += shards.read_left(place / shards.LEFT)
        elif answer.fault in OUTSIDE:
            value(answer, f"source {named.name}")
        elif len(batch) > 1:
            waiting.extendleft([entry] for entry in reversed(batch))
        else:
            identity = provenance_id(named.name, batch[0].name, b"")
            reason = f"parser_{answer.fault}"
            found.left.append(Quarantined(identity, reason, batch[0].name, named.name, answer.detail))
    return found


def _request(named: Named, batch: Sequence[Entry], place: Path, found: Look) -> Request:
    argument = {
        "source": named.source.model_dump(mode="json"),
        "name": named.name,
        "root": None if named.root is None else str(named.root),
        "entries": [{**asdict(e), "path": str(e.path)} for e in batch],
        "rows": LOOKED_AT - found.number,
        "shown": SHOWN - len(found.shown),
        "out": str(place),
    }
    return Request(f"{__name__}:peek", argument, Caps(str(place)))


def peek(argument: Mapping[str, Any]) -> dict[str, Any]:
    """Write the first rows of some files into the shard directory `out`; returns the very first as they are shown."""
    given: Source = TypeAdapter(Source).validate_python(argument["source"])
    named = Named(given, argument["name"], None if argument["root"] is None else Path(argument["root"]))
    reader, shown = named.reader(), list[dict[str, str]]()
    entries = [Entry(**{**raw, "path": Path(raw["path"])}) for raw in argument["entries"]]
    with shards.Writer(Path(argument["out"])) as writer:
        for outcome in (outcome for entry in entries for outcome in rows(reader, named, entry)):
            if writer.counts.total().read >= argument["rows"] or writer.bytes >= BYTES:
                return {"shown": shown, "more": True}
            writer.write(outcome)
            if isinstance(outcome, Record) and len(shown) < argument["shown"]:
                shown.append(_shown(outcome))
    return {"shown": shown, "more": False}


# ---------------------------------------------------------------- telling


def preview(named: Named, scratch: Path, mapper: Mapper) -> dict[str, Any]:
    """The first rows of a source and a summary of LOOKED_AT of them.

    Returns `read`, whether there is `more`, `kept`, `left_out` (reason → rows) with an example of each, `row_type`
    (rows by type), `rows` (SHOWN of them, cells cut short), and `quality`: characters of a row, equal rows, languages,
    personal identifiers by kind.
    """
    found = look(named, scratch, mapper)
    reasons = Counter(row.reason for row in found.left)
    first = {row.reason: row for row in reversed(found.left)}
    return {
        "read": found.number,
        "more": found.more,
        "kept": len(found.rows),
        "left_out": {
            reason: {
                "rows": number,
                "path": first[reason].path,
                "detail": first[reason].detail or advice(named.source.type, reason),
            }
            for reason, number in reasons.most_common()
        },
        "row_type": dict(Counter(row_type(_fields(row)) for row in found.rows).most_common()),
        "rows": found.shown,
        "quality": quality(found.rows),
    }


def advice(kind: str, reason: str) -> str:
    """What a user may do about a reason that says little by itself, for a source of this type."""
    if kind == "files" and reason == "undecodable":
        return "no text in this encoding; `encoding: auto` guesses another"
    return ""


def quality(seen: Sequence[Record]) -> dict[str, Any]:
    """What can be said of some rows at a glance."""
    from flywheel.process.language import detect
    from flywheel.process.privacy import find_pii

    said = [text for row in seen if (text := "\n".join(texts(row)))]
    labels = Counter(row.label for row in seen if row.label is not None)
    found: dict[str, Any] = {"equal_rows": len(seen) - len({content(row) for row in seen})}
    if labels:
        found |= {"labels": len(labels), "most_common_labels": dict(labels.most_common(5))}
    if said:
        lengths = list(map(len, said))
        found |= {
            "characters": {"median": round(statistics.median(lengths)), "longest": max(lengths)},
            "replacement_characters": sum(text.count("\ufffd") for text in said),
            "languages": dict(Counter(detect(text)[0] for text in said).most_common(5)),
            "personal_identifiers": dict(
                Counter(match.kind for text in said for match in find_pii(text[:SEARCHED])).most_common()
            ),
        }
    return found


def _fields(row: Record) -> Mapping[str, Any]:
    return {name: cell for name in COLUMNS if (cell := getattr(row, name)) is not None}


def _shown(row: Record) -> dict[str, str]:
    shown = {"path": str(row.origin.get("path", ""))}
    for name, cell in _fields(row).items():
        if isinstance(cell, bytes):
            shown[name] = _medium(name, cell)
        elif name in STRUCTURED and not isinstance(cell, str):
            shown[name] = "\n".join(f"{message['role']}: {_cut(message['content'])}" for message in cell[:SHOWN])
        else:
            shown[name] = _cut(cell)
    return shown


def _cut(text: str) -> str:
    return text if len(text) <= CELL else f"{text[:CELL].rstrip()}... ({len(text)} characters)"


def _medium(column: str, data: bytes) -> str:
    """A picture or a recording in words."""
    from flywheel.facts import audio_facts, image_facts

    about = image_facts(data) if column == "image" else audio_facts(data)
    if not about[f"{column}_intact"]:
        return f"damaged, {len(data)} bytes"
    if column == "image":
        return f"{about['width']}x{about['height']} pixels, {len(data)} bytes"
    return f"{about['seconds']:.2f} s at {about['sample_rate']} Hz, {len(data)} bytes"
