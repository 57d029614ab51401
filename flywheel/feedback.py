"""Feedback: what users of a served model say about its answers, and the rows that are made of it.

One file for each model, `<model>.jsonl`, to which whole lines are appended:

    {"model", "prompt", "completion", "rating": "up" | "down", "received": seconds since 1970 in UTC}

and, where given, `id` of the answer, `correction` and `comment`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flywheel.errors import ServingError, SourceError
from flywheel.recipe_sources import FeedbackSource
from flywheel.sources.rolling import write_lines

MAX_BYTES = 1 << 30
"""Of the file of one model."""


def path(directory: Path, model: str) -> Path:
    """The file of a model, whatever its name is."""
    return directory / f"{quote(model, safe='')}.jsonl"


def append(directory: Path, entry: Mapping[str, Any]) -> None:
    """Append one entry to the file of its `model`; it is on the disk when this returns.

    Several threads and processes may append at once. After a crash in the middle of a line the next entry begins a new
    one. Raises ServingError where the file is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    line = json.dumps(entry, ensure_ascii=False, sort_keys=True).encode() + b"\n"
    target = path(directory, entry["model"])
    handle = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        if size + len(line) > MAX_BYTES:
            raise ServingError(
                f"feedback for {entry['model']}",
                found=f"{size:,} bytes of it",
                expected=f"at most {MAX_BYTES:,} bytes",
                remedy=f"move {target.name} away once it has been used",
            )
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, b"\n" + line if torn else line)
        os.fsync(handle)
    finally:
        os.close(handle)


def acquire(source: FeedbackSource, into: Path, *, directory: Path) -> dict[str, Any]:
    """Write what users sent into `into`/rows-00000.jsonl and so on: `prompt`, `completion` and `label`, the rating.

    A correction takes the place of the completion. `rating: up` leaves out the answers that were not liked and not
    corrected. A line that cannot be read is handed on as it is, to be quarantined. Returns `rows`, `files` and
    `left_out`. Raises SourceError where there is no feedback for the model.
    """
    file = path(directory, source.model)
    if not file.is_file():
        raise SourceError(
            f"feedback for the model {source.model}",
            found="none",
            expected="answers that users of `flywheel serve` have rated",
            remedy="serve the model and send ratings to POST /v1/feedback",
        )
    left_out = [0]
    return {**write_lines(into, _rows(file, source.rating == "any", left_out)), "left_out": left_out[0]}


def _rows(file: Path, everything: bool, left_out: list[int]) -> Iterator[dict[str, str] | bytes]:
    with file.open("rb") as lines:
        fcntl.flock(lines, fcntl.LOCK_SH)
        for line in lines:
            try:
                entry = json.loads(line)
                prompt, rating, correction = entry["prompt"], entry["rating"], entry.get("correction")
                completion = entry["completion"] if correction is None else correction
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                yield line if line.endswith(b"\n") else line + b"\n"
                continue
            if everything or rating == "up" or correction is not None:
                yield {"prompt": prompt, "completion": completion, "label": rating}
            else:
                left_out[0] += 1
