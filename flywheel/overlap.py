"""Contamination: held-out rows that stand, whole or in part, in the training rows, and so flatter the evaluation.

A held-out row counts where it shares a run of NGRAM words with a training row (Brown et al. 2020, appendix C), equals
one, or is at least THRESHOLD similar to one (MinHash). Paraphrases and translations are not found.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flywheel.process.contamination import EXAMPLES, batches, shared_runs
from flywheel.process.duplicates import THRESHOLD, Mask, Sketches, leaks, sketch
from flywheel.record import Record, read_rows

_SKETCHED = 1 << 25
"""Bytes of rows that are sketched at a time, about."""
_HELDOUT, _TRAIN = 0, 1


def contamination(train: Path, heldout: Path, scratch: Path) -> dict[str, Any]:
    """How many `rows` of `heldout` are contaminated, and their share `rate`; the two kinds one by one as `shared_runs`
    and `similar`; and ids of `examples`, with that of a training row where it is known.

    Sketches of all rows, about as large as their texts, lie in the directory `scratch` meanwhile.
    """
    runs = shared_runs(read_rows(train), read_rows(heldout))
    similar = _similar(train, heldout, scratch)
    both, alone = runs.contaminated | similar, np.flatnonzero(similar & ~runs.contaminated)
    rows = int(both.sum())
    return {
        "heldout": len(runs.ids),
        "rows": rows,
        "rate": rows / max(1, len(runs.ids)),
        "shared_runs": int(runs.contaminated.sum()),
        "similar": int(similar.sum()),
        "examples": [*runs.examples, *({"heldout": runs.ids[place]} for place in alone[:EXAMPLES])][:EXAMPLES],
    }


def _similar(train: Path, heldout: Path, scratch: Path) -> Mask:
    """Which held-out rows equal a training row or are nearly the same, shape (held-out rows,)."""
    with TemporaryDirectory(dir=scratch) as directory:
        paths, sides = list[Path](), [np.empty(0, np.uint8)]
        for side, rows in ((_HELDOUT, heldout), (_TRAIN, train)):
            for batch in batches(read_rows(rows), _SKETCHED):
                paths.append(_sketched(batch, Path(directory, str(len(paths)))))
                sides.append(np.full(len(batch), side, np.uint8))
        side_of = np.concatenate(sides)
        found: Mask = leaks(Sketches.read(paths), side_of, THRESHOLD)[side_of == _HELDOUT]
        return found


def _sketched(rows: list[Record], path: Path) -> Path:
    import pyarrow as pa

    table = sketch(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path
