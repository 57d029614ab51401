"""Cells of a database as columns of Parquet.

Whole numbers, floats, truth values, texts and bytes are kept; dates and times become ISO 8601, JSON and arrays JSON,
decimals (exact) and everything else text. A column whose rows disagree becomes float, text or, with bytes in it, bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes"}


class Columns:
    """Names and types of the columns; a type only ever widens, so that few files differ in theirs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._kinds: list[str | None] = [None] * len(names)

    def table(self, rows: Sequence[Sequence[Any]]) -> pa.Table:
        """Rows as a table with one type for each column; a column without any value is text."""
        import pyarrow as pa

        types = {
            None: pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string(),
            "bytes": pa.binary(),
        }  # fmt: skip
        columns = []
        for number, cells in enumerate(zip(*rows, strict=True)):
            plain = [_plain(cell) for cell in cells]
            kind = self._kinds[number] = _widest([self._kinds[number], *map(_kind, plain)])
            columns.append(pa.array([_as(cell, kind) for cell in plain], types[kind]))
        return pa.Table.from_arrays(columns, names=list(self.names))


def _plain(cell: Any) -> Any:
    """None, or a bool, int, float, str or bytes."""
    if cell is None or type(cell) in _PLAIN:
        return cell
    if isinstance(cell, memoryview | bytearray):
        return bytes(cell)
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, dict | list | tuple):
        return json.dumps(cell, ensure_ascii=False, default=_json)
    return str(cell)


def _json(cell: Any) -> Any:
    """A part of a JSON document or array that JSON does not know."""
    plain = _plain(cell)
    return plain.hex() if isinstance(plain, bytes) else plain


def _kind(cell: Any) -> str | None:
    if cell is None:
        return None
    if type(cell) is int and not -(2**63) <= cell < 2**63:
        return "str"
    return _PLAIN[type(cell)]


def _widest(kinds: Iterable[str | None]) -> str | None:
    found = set(kinds) - {None}
    if len(found) <= 1:
        return next(iter(found), None)
    if "bytes" in found:
        return "bytes"
    return "float" if found == {"int", "float"} else "str"


def _as(cell: Any, kind: str | None) -> Any:
    if cell is None or kind is None or _kind(cell) == kind == "bytes":
        return cell
    if kind == "bytes":
        return str(cell).encode()
    if kind == "str":
        return str(cell)
    return float(cell) if kind == "float" else cell
