"""What a parser of one file yields: rows with named cells, and places it could not read.

A parser is `parse(path: Path, options) -> Iterator[Found | Bad]`. It runs in a child process with caps on memory, time
and output (`flywheel.confinement`), streams, and never holds more than one row, page or member of a hostile file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_CELL = 32 << 20
"""Bytes of one cell, line or document at most; a larger one is `too_long`."""


@dataclass(frozen=True, slots=True)
class Found:
    """One row: a document has the single cell `text` (and perhaps `title`), a table has its columns."""

    position: str
    """Where in the file: a line, row, `sheet!row`, page or `member.csv:17`; empty where the file is one row."""
    cells: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Added to the row's origin: `url`, `fetched`, `title`, `group`."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A place that could not be read; it is quarantined."""

    position: str
    reason: str
    """snake_case: `undecodable`, `bad_csv`, `too_long`, `encrypted`, `truncated`, `bomb`, ..."""
    detail: str = ""
    """At most 200 characters for people: what the library said, or an excerpt."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a file is read."""

    encoding: str = "utf-8"
    """As in the recipe: a codec, or `auto`."""


Parser = Callable[[Path, Options], Iterator[Found | Bad]]
