"""What every kind of features is made of.

A module of this package has `fit(rows, config) -> Vectoriser`, which may go through the rows more than once, and
`load(directory, config) -> Vectoriser`, which reads what `save` wrote, without pickle. To transform words, pixels and
sound no library that learns is needed, so that a server can do it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flywheel.errors import SourceError
from flywheel.record import Record, parts, read_rows, texts

Vectors = NDArray[np.float32]

_WORD = re.compile(r"(?u)\b\w\w+\b")


class Vectoriser(Protocol):
    """Turns rows into vectors of one width."""

    @property
    def width(self) -> int: ...

    def transform(self, rows: Sequence[Record]) -> Vectors:
        """Shape (rows, width). Raises SourceError for a row that lacks what it needs."""

    def save(self, directory: Path) -> None:
        """Write what was learnt into an empty directory."""


@dataclass(frozen=True)
class Sample:
    """About `size` rows of a Parquet file (or directory of them), drawn by the hashes of their ids."""

    path: Path
    size: int

    def __iter__(self) -> Iterator[Record]:
        import pyarrow.parquet as pq

        share = self.size / max(1, sum(pq.read_metadata(file).num_rows for file in parts(self.path)))
        for row in read_rows(self.path):
            if share >= 1 or int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:8], "big") < share * 2**64:
                yield row


def text(row: Record) -> str:
    """All texts of a row."""
    return "\n".join(texts(row))


def words(value: str) -> list[str]:
    """Words of at least two letters or digits, as scikit-learn's vectorizers cut them."""
    return _WORD.findall(value)


def unfit(kind: str, found: str, remedy: str) -> SourceError:
    """The error for rows that nothing can be learnt from."""
    return SourceError(f"features of type {kind}", found=found, expected="training rows to learn from", remedy=remedy)


def part(row: Record, name: str) -> bytes:
    """The picture or recording of a row. Raises SourceError where there is none."""
    data: bytes | None = getattr(row, name)
    if data is None:
        raise unreadable(row, name, f"no {name}")
    return data


def unreadable(row: Record, name: str, found: str) -> SourceError:
    """The error for a row without the picture or recording that its features need."""
    place = row.origin.get("path", "")
    return SourceError(
        f"features of row {row.id}{f' ({place})' if place else ''}",
        found=found,
        expected=f"a row with a readable {name}",
        remedy=f"leave such rows out with `expect_{'images' if name == 'image' else name}_to_be_intact`, or choose "
        "features of another type",
    )


def unit(vectors: Vectors) -> Vectors:
    """Scaled to length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    return scaled


def read_json_names(path: Path) -> dict[str, int]:
    """Names to their columns, from a JSON list."""
    import json

    listed: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    return {str(name): column for column, name in enumerate(listed)}


def write_json_names(path: Path, names: Sequence[str]) -> None:
    import json

    path.write_text(json.dumps(list(names), ensure_ascii=False), encoding="utf-8")
