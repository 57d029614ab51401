"""What a table beside pictures or recordings says of them, as Hugging Face's ImageFolder and AudioFolder read it.

A `metadata.csv`, `.jsonl` or `.parquet` describes files of its directory and of those below: `file_name` relative to
it, and `text`, `label`, `group`, `prompt` or `completion`. Several rows for one file are several rows of the dataset.
"""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.sources.parsed import MAX_CELL, Bad

COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("text", "caption", "transcription", "transcript", "sentence"),
    "label": ("label",),
    "group": ("group",),
    "prompt": ("prompt",),
    "completion": ("completion",),
}
"""Column of a row → the names it goes by; the first that is not empty counts."""


@dataclass(frozen=True, slots=True)
class Described:
    """One row of a table."""

    position: str
    """Line of a text file; number of the row in Parquet, from 1."""
    file: str
    """The file's name relative to the source, as the listing has it; a name that points elsewhere is in no listing."""
    cells: Mapping[str, str]
    """Those of COLUMNS that are not empty."""


def read_table(path: Path, directory: str) -> Iterator[Described | Bad]:
    """Rows of a table that lies in `directory`, relative to the source. Bad: `bad_csv`, `bad_json`, `bad_parquet`,
    `undecodable`, `missing_column` (no `file_name`), `not_text`.
    """
    position = "0"
    try:
        for position, row in FORMATS[path.suffix](path):
            yield row if isinstance(row, Bad) else _described(position, row, directory)
    except UnicodeDecodeError as error:
        yield Bad(position, "undecodable", str(error)[:200])
    except Exception as error:
        # Readers of foreign bytes raise more than they declare; what follows the place cannot be read.
        yield Bad(position, f"bad_{path.suffix[1:].removesuffix('l')}", f"{type(error).__name__}: {error}"[:200])


def _described(position: str, row: Any, directory: str) -> Described | Bad:
    if not isinstance(row, dict):
        return Bad(position, "bad_json", f"a {type(row).__name__}")
    file = row.get("file_name")
    if not isinstance(file, str) or not file:
        return Bad(position, "missing_column", "file_name")
    cells: dict[str, str] = {}
    for column, names in COLUMNS.items():
        value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
        if isinstance(value, list | dict | bytes):
            return Bad(position, "not_text", f"{column} is a {type(value).__name__}")
        if value is not None:
            cells[column] = str(value)
    if any("\ud800" <= sign <= "\udfff" for sign in "".join([file, *cells.values()])):
        return Bad(position, "undecodable", "half of a surrogate pair")
    return Described(position, posixpath.normpath(posixpath.join(directory, file)), cells)


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(MAX_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        for row in rows:
            position = str(rows.line_num)
            if len(row) > len(header):
                yield position, Bad(position, "bad_csv", f"{len(row)} cells under {len(header)} columns")
            elif row:
                yield position, dict(zip(header, row, strict=False))


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            position = str(number)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield position, json.loads(text)
            except UnicodeDecodeError as error:
                yield position, Bad(position, "undecodable", str(error)[:200])
            except (ValueError, RecursionError) as error:
                yield position, Bad(position, "bad_json", str(error)[:200])


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as pq

    wanted = {"file_name"}.union(*COLUMNS.values())
    with pq.ParquetFile(path, pre_buffer=False) as file:
        number = 0
        for batch in file.iter_batches(1_024, columns=[n for n in file.schema_arrow.names if n in wanted]):
            for row in batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows:
                number += 1
                yield str(number), row


FORMATS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
"""Ending of a table → its reader, which yields positions with their cells."""
TABLES = tuple(f"metadata{ending}" for ending in FORMATS)
"""Names of the tables."""
