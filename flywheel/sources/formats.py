"""Which parser reads which file: by the ending of its name, checked against the first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flywheel.sources import archives, documents, html_text, json_tables, tables
from flywheel.sources.decoding import UnknownEncoding
from flywheel.sources.parsed import Bad, Found, Options, Parser

FORMATS: dict[str, Parser] = {
    ".txt": documents.plain,
    ".text": documents.plain,
    ".md": documents.plain,
    ".markdown": documents.plain,
    ".rst": documents.plain,
    ".html": html_text.html,
    ".htm": html_text.html,
    ".xhtml": html_text.html,
    ".pdf": documents.pdf,
    ".docx": documents.docx,
    ".csv": tables.separated,
    ".tsv": tables.separated,
    ".json": json_tables.json_rows,
    ".jsonl": json_tables.json_lines,
    ".ndjson": json_tables.json_lines,
    ".parquet": tables.parquet,
    ".xlsx": tables.excel,
    ".xlsm": tables.excel,
    ".zip": archives.parse,
    ".tar": archives.parse,
    ".tgz": archives.parse,
    ".gz": archives.parse,
}
"""Ending of a name → parser. `.gz` may follow any other ending."""

_ENDING = re.compile(r"(?:\.[a-z0-9]{1,10})?\.[a-z0-9]{1,10}\Z")
_TEXTS = (documents.plain, html_text.html, tables.separated, json_tables.json_rows, json_tables.json_lines)
_SIGNATURES = (
    *(b"PK\x03\x04", b"\x1f\x8b", b"%PDF-", b"PAR1", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x7fELF", b"RIFF"),
    b"\x00\x05\x16\x07",  # AppleDouble: the `._` files that macOS puts beside others, and into zips
)
"""What other files begin with, and no text."""

_FAULTS: dict[type[Exception], str] = {
    MemoryError: "too_long",
    RecursionError: "too_deep",
    UnknownEncoding: "bad_encoding",
    UnicodeError: "undecodable",
    OSError: "unreadable",
}


def suffix(name: str) -> str:
    """The ending of a name that says how the file is read, in lower case (`.csv`, `.jsonl.gz`); "" for unknown ones."""
    found = _ENDING.search(name.lower())
    ending = found.group() if found else ""
    inner, _, last = ending.rpartition(".")
    if last == "gz":
        return ending if inner in FORMATS and not inner.endswith("gz") else ""
    return f".{last}" if f".{last}" in FORMATS else ""


def parser(name: str) -> Parser | None:
    """The parser of a file of this name, or None for an unknown format.

    It yields at least one Found or Bad, and lets no error of a library through. Bad, besides what the format's own
    function says: `wrong_format` (a text that begins as a picture does, ...), `empty` (no rows at all), `unreadable`,
    `too_long` (out of memory), `too_deep`, `bad_encoding` (the recipe names none).
    """
    ending = suffix(name)
    return partial(_parse, ending) if ending else None


def _parse(ending: str, path: Path, options: Options) -> Iterator[Found | Bad]:
    met = False
    try:
        for part in _rows(ending, path, options):
            met = True
            yield part
    except tuple(_FAULTS) as error:
        reason = next(reason for kind, reason in _FAULTS.items() if isinstance(error, kind))
        yield Bad("", reason, (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200])
    else:
        if not met:
            yield Bad("", "empty", "no rows")


def _rows(ending: str, path: Path, options: Options) -> Iterator[Found | Bad]:
    parse = FORMATS[".gz" if ending.endswith(".gz") else ending]
    if parse in _TEXTS:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(_SIGNATURES):
            yield Bad("", "wrong_format", f"a {ending} file that begins with {start!r}")
            return
    yield from parse(path, options)
