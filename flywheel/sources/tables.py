"""Rows from tables: CSV and TSV, Parquet, Excel."""

from __future__ import annotations

import csv
import datetime
import decimal
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flywheel.sources.archives import office_fault
from flywheel.sources.decoding import BLOCK, bounded, damaged, open_text
from flywheel.sources.parsed import MAX_CELL, Bad, Found, Options

if TYPE_CHECKING:
    import python_calamine

MAX_CELLS = 12_000_000
"""Cells of the rectangle that encloses a sheet; the reader of Excel files holds them all, 32 bytes each."""
REPLAY = 4 * MAX_CELL
"""Characters of a CSV file that are read again after open quotes."""
PARQUET_BATCH = 16 << 20
"""Bytes of a Parquet file that are unpacked at a time, about."""

_CELL = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]{1,16})([0-9]{1,16})["'](?:[^>/"']|"[^"]*"|'[^']*'|/(?!>))*>""")


# ---------------------------------------------------------------- CSV


class _TooLong(Exception):
    """A line or a row of more than MAX_CELL characters."""


class _Lines:
    """The lines of a CSV file for its reader, which can be given back after an open quote has swallowed them."""

    def __init__(self, file: TextIO) -> None:
        self._lines = bounded(file)
        self._again: deque[str] = deque()
        self._allowance = REPLAY
        self._size = 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        if line is None:
            raise _TooLong
        self.taken.append(line)
        self._size += len(line)
        if self._size > MAX_CELL:
            raise _TooLong
        return line

    def begin_row(self) -> None:
        self.taken.clear()
        self._size = 0

    def give_back(self) -> None:
        """Read again all lines of this row but the first, as long as that is not done too often."""
        self._allowance -= self._size
        if self._allowance >= 0:
            self._again.extendleft(reversed(self.taken[1:]))


def separated(path: Path, options: Options) -> Iterator[Found | Bad]:
    """Rows of a CSV or TSV file (RFC 4180) by the names in its first one; blank rows do not count. Position: the row.

    A CSV file whose header has no comma may use semicolons, tabs or bars. Bad: `undecodable`, `too_long`, and `bad_csv`
    for wrong quotes, after which reading goes on with the next line, and for more cells than names.
    """
    csv.field_size_limit(MAX_CELL + 1)
    with open_text(path, options) as file:
        lines = _Lines(file)
        rows = csv.reader(lines, delimiter=_delimiter(path, file), strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            number += 1
            lines.begin_row()
            try:
                row = next(rows)
            except StopIteration:
                return
            except (csv.Error, _TooLong, MemoryError) as error:
                first = lines.taken[0] if lines.taken else ""
                yield _bad_row(number, error, len(lines.taken), first)
                lines.give_back()
                continue
            if header is None:
                header = _unique(row)
            elif row:
                yield _csv_row(str(number), header, row, lines.taken)


def _delimiter(path: Path, file: TextIO) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = file.readline(BLOCK)
    file.seek(0)
    return "," if "," in header else max(",;\t|", key=header.count)


def _bad_row(number: int, error: Exception, lines: int, first: str) -> Bad:
    excerpt = first[:80].encode("utf-8", "replace").decode().strip()
    if isinstance(error, csv.Error) and "limit" not in str(error):
        extent = f" ({lines} lines on)" if lines > 1 else ""
        return Bad(str(number), "bad_csv", f"{error}{extent}: {excerpt}")
    return Bad(str(number), "too_long", f"over {MAX_CELL} characters, perhaps an open quote: {excerpt}")


def _unique(header: Sequence[str]) -> list[str]:
    """Names of columns; a second `text` is `text.1`, as pandas has it."""
    names: dict[str, None] = {}
    for name in header:
        clean, number = name.encode("utf-8", "replace").decode().strip(), 0
        unique = clean
        while unique in names:
            number += 1
            unique = f"{clean}.{number}"
        names[unique] = None
    return list(names)


def _csv_row(position: str, header: Sequence[str], row: Sequence[str], lines: Sequence[str]) -> Found | Bad:
    if any(damaged(line) for line in lines):
        return Bad(position, "undecodable")
    if len(row) > len(header) and any(row[len(header) :]):
        return Bad(position, "bad_csv", f"{len(row)} cells where the header has {len(header)}")
    return Found(position, dict(zip(header, row, strict=False)))


# ---------------------------------------------------------------- Parquet


def parquet(path: Path, options: Options) -> Iterator[Found | Bad]:
    """Rows of a Parquet file, unpacked in small batches. Position: the row. Bad: `bad_parquet`, `too_long`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # The default pool reserves address space that a capped process does not have.
    pool = pa.system_memory_pool()
    pa.set_memory_pool(pool)
    number = 0
    try:
        limits = {"thrift_string_size_limit": MAX_CELL, "thrift_container_size_limit": 1_000_000}
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False, **limits) as file:
            for batch in file.iter_batches(_batch_size(file), use_threads=False):
                names = _unique(batch.schema.names)
                columns = [[_simple(value) for value in column.to_pylist()] for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    cells = dict(zip(names, values, strict=True))
                    yield _too_long(str(number)) if _over(values) else Found(str(number), cells)
    except MemoryError:
        yield Bad(str(number + 1), "too_long", "no memory is left for a batch of rows")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        yield Bad(str(number + 1), "bad_parquet", str(error)[:200])


def _batch_size(file: Any) -> int:
    """Rows of a batch of about PARQUET_BATCH bytes, going by the fattest row group; 1,024 at most."""
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    fattest = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=0.0)
    return max(1, min(1_024, int(PARQUET_BATCH / max(1.0, fattest))))


# ---------------------------------------------------------------- Excel


def excel(path: Path, options: Options) -> Iterator[Found | Bad]:
    """Rows of every sheet by the names in its first row that is not empty. Position: `sheet!row`.

    Formulas give the value that was stored with them. Bad: `encrypted`, `bomb`, `bad_xlsx`.
    """
    import python_calamine

    fault = office_fault(path, "bad_xlsx", _sheet_fault)
    if fault:
        yield fault
        return
    try:
        with python_calamine.CalamineWorkbook.from_path(path) as book:
            for about in book.sheets_metadata:
                if about.typ == python_calamine.SheetTypeEnum.WorkSheet:
                    yield from _sheet(book, about.name)
    except python_calamine.PasswordError:
        yield Bad("", "encrypted")
    except python_calamine.CalamineError as error:
        yield Bad("", "bad_xlsx", str(error)[:200])


def _sheet(book: python_calamine.CalamineWorkbook, name: str) -> Iterator[Found | Bad]:
    import python_calamine

    try:
        sheet = book.get_sheet_by_name(name)
    except python_calamine.CalamineError as error:
        yield Bad(name, "bad_xlsx", str(error)[:200])
        return
    header: list[str] | None = None
    for number, values in enumerate(sheet.iter_rows(), start=1):
        row = [_excel_value(value) for value in values]
        if all(value is None for value in row):
            continue
        if header is None:
            header = _unique(["" if value is None else str(value) for value in row])
        else:
            cells = {key: value for key, value in zip(header, row, strict=False) if key or value is not None}
            yield _too_long(f"{name}!{number}") if _over(row) else Found(f"{name}!{number}", cells)


def _sheet_fault(name: str, blocks: Iterable[bytes]) -> str:
    """Why a sheet must not be loaded: one stray cell at the far corner makes billions of cells in memory."""
    columns, last, tail = set[bytes](), 1, b""
    for block in blocks:
        text = tail + block
        found = _CELL.findall(text)
        columns.update(column.upper() for column, _ in found)
        last = max(last, *map(int, {row for _, row in found})) if found else last
        tail = text[text.rfind(b"<") :][:1_024]
    width = max((_column(column) for column in columns), default=1)
    return f"a sheet of {last} x {width} cells" if last * width > MAX_CELLS else ""


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number


# ---------------------------------------------------------------- values


def _simple(value: Any) -> Any:
    """A cell as JSON has it: NaN and infinity are None, times are ISO 8601."""
    if value is None or isinstance(value, str | bytes | bool | int):
        return value
    convert = next((made for kind, made in _CONVERSIONS.items() if isinstance(value, kind)), None)
    return convert(value) if convert else value


def _excel_value(value: Any) -> Any:
    """Excel knows no whole numbers and no empty texts."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return None if value == "" else _simple(value)


_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    float: lambda value: value if math.isfinite(value) else None,
    datetime.datetime: datetime.datetime.isoformat,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
    datetime.timedelta: str,
    decimal.Decimal: str,
    list: lambda values: [_simple(value) for value in values],
    tuple: lambda values: [_simple(value) for value in values],
    dict: lambda values: {name: _simple(value) for name, value in values.items()},
}


def _over(values: Iterable[Any]) -> bool:
    return any(isinstance(value, str | bytes) and len(value) > MAX_CELL for value in values)


def _too_long(position: str) -> Bad:
    return Bad(position, "too_long", f"over {MAX_CELL >> 20} MB")
