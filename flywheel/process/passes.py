"""What a worker does with one file of rows: run operations on them, or sketch them for a decision about all rows."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from flywheel import shards
from flywheel.arguments import named
from flywheel.process.table import OPERATIONS, Codes
from flywheel.recipe_base import Operation
from flywheel.record import LeftOut, Outcome, Quarantined, Record, drop, read_rows, read_some

ELSEWHERE = 255
"""The code of a row that is not this pass's concern: neither kept nor dropped by it."""
SKETCH = "sketch.arrow"


@dataclass
class Report:
    """What one operation did with the rows of a shard."""

    operation: str
    read: int = 0
    made: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {
            "operation": self.operation,
            "read": self.read,
            "made": self.made,
            "dropped": dict(sorted(self.dropped.items())),
            "quarantined": dict(sorted(self.quarantined.items())),
        }


def packed(codes: Codes) -> str:
    """Codes as JSON text."""
    return base64.b64encode(zlib.compress(codes.tobytes())).decode()


def unpacked(text: str) -> Codes:
    """Codes as `packed` wrote them."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)


def run(argument: Mapping[str, Any]) -> dict[str, Any]:
    """Run `operations` on the rows of `file` into the shard directory `out`; returns the facts of the shard.

    Where there are `codes`, rows are dropped for the `reasons` they stand for first. Every row of the file comes out as
    kept, dropped or quarantined, unless an operation expands.
    """
    reports = [Report(named(operation)[0]) for operation in argument["operations"]]
    with shards.Writer(Path(argument["out"])) as writer:
        source = _selected(Path(argument["file"]), argument.get("codes"), argument.get("reasons", ()), writer)
        for operation, report in zip(argument["operations"], reports, strict=True):
            source = _applied(operation, source, report, writer)
        for row in source:
            writer.write(row)
    return {"counts": writer.counts.as_json(), "bytes": writer.bytes, "operations": [r.as_json() for r in reports]}


def augment(argument: Mapping[str, Any]) -> dict[str, Any]:
    """Write what each augmenting operation of `operations` makes of the rows of `file`."""
    reports = [Report(named(operation)[0]) for operation in argument["operations"]]
    with shards.Writer(Path(argument["out"])) as writer:
        for operation, report in zip(argument["operations"], reports, strict=True):
            for row in _applied(operation, read_rows(Path(argument["file"])), report, writer):
                writer.write(row)
    return {"counts": writer.counts.as_json(), "bytes": writer.bytes, "operations": [r.as_json() for r in reports]}


def sketch(argument: Mapping[str, Any]) -> dict[str, Any]:
    """Write the sketch of `file` that the function `sketch` (`module:name`) makes, as an Arrow IPC file."""
    import pyarrow as pa

    module, _, name = argument["sketch"].partition(":")
    table = getattr(import_module(module), name)(read_rows(Path(argument["file"])))
    with pa.OSFile(str(Path(argument["out"], SKETCH)), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return {"rows": table.num_rows}


def _selected(file: Path, codes: str | None, reasons: Sequence[str], writer: shards.Writer) -> Iterator[Record]:
    """The rows whose code is 0; the others are dropped here, but for those that are elsewhere's concern."""
    if codes is None:
        yield from read_rows(file)
        return
    found = unpacked(codes)
    here = found != ELSEWHERE
    for row, code in zip(read_some(file, here), found[here].tolist(), strict=True):
        if code == 0:
            yield row
        else:
            writer.write(drop(row, reasons[code - 1]))


def _applied(operation: Operation, rows: Iterable[Record], report: Report, writer: shards.Writer) -> Iterator[Record]:
    """Run one operation on a stream of rows; what it leaves out goes to the writer."""

    def read() -> Iterator[Record]:
        for row in rows:
            report.read += 1
            yield row

    name, arguments = named(operation)
    outcomes: Iterator[Outcome] = OPERATIONS[name].function(name)(read(), **arguments)
    for outcome in outcomes:
        if isinstance(outcome, LeftOut):
            (report.quarantined if isinstance(outcome, Quarantined) else report.dropped)[outcome.reason] += 1
            writer.write(outcome)
        else:
            report.made += 1
            yield outcome
