"""Looking through files of rows: column by column, side by side, and each file once, however many links lead to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.record import COLUMNS, STRUCTURED, Record, from_batch

if TYPE_CHECKING:
    import pyarrow as pa

    from flywheel.subject import Subject

TEXTS = (*(name for name in COLUMNS if name not in ("image", "audio")), "origin")
"""Columns that can say something."""
JSON = (*STRUCTURED, "origin")
"""Those of them that are JSON."""
LEFT = ("id", "reason", "source", "path", "detail")
"""Columns of a list of rows that were left out."""

_RUN, _TOGETHER = 32, 8
"""Row groups that one thread takes, and that it looks at together."""

Choose = Callable[["pa.Table"], Any]
"""From some columns to a mask of rows."""


@dataclass
class Scan:
    """What was chosen from some files."""

    tables: dict[Path, pa.Table] = field(default_factory=dict)
    """File → the rows that were chosen, where there is one."""
    unread: list[Path] = field(default_factory=list)
    """Files that are damaged."""

    def records(self) -> Iterator[tuple[Path, Record]]:
        for file, table in self.tables.items():
            for batch in table.to_batches():
                for row in from_batch(batch):
                    yield file, row


def rows(files: Iterable[Path], columns: Sequence[str], choose: Choose, *, whole: bool) -> Scan:
    """The rows of Parquet files that `choose` picks by some of their columns; `whole`: with all columns."""
    found, links = Scan(), _links(files)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        groups = dict(zip(links, threads.map(_row_groups, links), strict=True))
        runs = [
            (file, range(start, min(start + _RUN, number)))
            for file, number in groups.items()
            if number
            for start in range(0, number, _RUN)
        ]
        parts = list(threads.map(lambda run: _chosen(run[0], run[1], columns, choose, whole), runs))
    for (file, _), part in zip(runs, parts, strict=True):
        if part is None:
            groups[file] = None
    for file, others in links.items():
        if groups[file] is None:
            found.unread += others
        elif some := [part for (owner, _), part in zip(runs, parts, strict=True) if owner == file and part]:
            found.tables |= dict.fromkeys(others, _joined(some))
    return found


def saying(subject: Subject) -> Choose:
    """Picks rows in which any column but the id says a subject, and perhaps a few more."""

    def choose(table: pa.Table) -> Any:
        import pyarrow.compute as pc

        mask = None
        for name in table.column_names:
            if name != "id":
                says = subject.mask(table[name], escaped=name in JSON)
                mask = says if mask is None else pc.or_(mask, says)
        return mask

    return choose


def of_ids(ids: Iterable[str]) -> Choose:
    """Picks rows with these ids, and those that were made from them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(ids), pa.string())

    def choose(table: pa.Table) -> Any:
        mask = pc.is_in(table["id"], value_set=wanted)
        if "origin" not in table.column_names:
            return mask
        made = pc.match_substring_regex(table["origin"], '"parent": "')  # much faster than without a regex
        if not pc.any(made).as_py():
            return mask
        parents = pc.extract_regex(table["origin"], pattern='"parent": "(?P<id>[^"]+)"')
        return pc.or_(mask, pc.is_in(pc.struct_field(parents, "id"), value_set=wanted))

    return choose


def left_out(file: Path, choose: Choose) -> list[Mapping[str, str]]:
    """The lines of a list of rows that were left out that `choose` picks by their columns LEFT."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    from flywheel.counts import line
    from flywheel.shards import read_left

    if not file.stat().st_size:
        return []
    schema = pa.schema([(name, pa.string()) for name in LEFT])
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = arrow_json.read_json(file, parse_options=options)
    except pa.ArrowInvalid:  # half a surrogate pair, or a line longer than a block
        lines = [{**line(row), "detail": row.detail.encode(errors="replace").decode()} for row in read_left(file)]
        table = pa.Table.from_pylist([{name: row[name] for name in LEFT} for row in lines], schema)
    found: list[Mapping[str, str]] = table.filter(choose(table)).to_pylist()
    return found


def _links(files: Iterable[Path]) -> dict[Path, list[Path]]:
    """One path for each file, and all paths that lead to it; those that are gone are passed over."""
    found: dict[tuple[int, int], list[Path]] = {}
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        found.setdefault((status.st_dev, status.st_ino), []).append(file)
    return {paths[0]: paths for paths in found.values()}


def _row_groups(file: Path) -> int | None:
    """Their number; None for a file that is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_row_groups)
    except (OSError, pa.ArrowException):
        return None


def _chosen(file: Path, groups: range, columns: Sequence[str], choose: Choose, whole: bool) -> list[pa.Table] | None:
    """The rows that are picked from some row groups; None for a file that is damaged."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: list[pa.Table] = []
    try:
        with pq.ParquetFile(file, memory_map=True) as reader:
            for start in range(groups.start, groups.stop, _TOGETHER):
                some = range(start, min(start + _TOGETHER, groups.stop))
                table = reader.read_row_groups(some, _present(reader, some, columns), use_threads=False)
                mask = choose(table)
                if mask is not None and pc.any(mask).as_py():
                    found += _whole(reader, some, mask) if whole else [table.filter(mask)]
    except (OSError, pa.ArrowException):
        return None
    return found


def _whole(reader: Any, groups: range, mask: Any) -> Iterator[pa.Table]:
    """The rows of a mask with all columns, from the row groups that have one."""
    import pyarrow.compute as pc

    start = 0
    for group in groups:
        part = mask.slice(start, number := reader.metadata.row_group(group).num_rows)
        start += number
        if pc.any(part).as_py():
            yield reader.read_row_group(group, use_threads=False).filter(part)


def _present(reader: Any, groups: range, columns: Sequence[str]) -> list[str]:
    """`id`, and those of some columns that are not empty throughout some row groups."""
    names = {"id"}
    for group in groups:
        about = reader.metadata.row_group(group)
        for place in range(about.num_columns):
            column = about.column(place)
            if column.path_in_schema in columns and column.path_in_schema not in names:
                statistics = column.statistics
                counted = statistics is not None and statistics.has_null_count
                if not counted or statistics.null_count < about.num_rows:
                    names.add(column.path_in_schema)
    return sorted(names, key=("id", *columns).index)


def _joined(parts: Sequence[Sequence[pa.Table]]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([table for part in parts for table in part])
