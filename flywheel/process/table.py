"""The operations of `data.process`, `data.augment` and `finetune.process`: where each lives and what it needs to see.

The function of an operation has the operation's name, and its signature is the schema of the arguments: names, types
and ranges are checked against it before a run.

`rows`    `op(rows: Iterable[Record], **arguments) -> Outcomes`: looks at one row at a time, so that shards are done
          side by side; yields exactly one Record, Dropped or Quarantined for each row, in order.
`expand`  the same, but may yield several Records for one row; only under `finetune.process`.
`augment` the same, and yields only the new, varied copies; only under `data.augment`.
`corpus`  `op(**arguments) -> Corpus`: decides about a row by looking at all of them (duplicates, sampling, balance).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from flywheel.record import Record

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["rows", "expand", "augment", "corpus"]
Codes = NDArray[np.uint8]
"""One number for each row: 0 keeps it, n drops it for reason n - 1."""


@dataclass(frozen=True)
class Corpus:
    """An operation that has to see all rows, in two parts: a small sketch of each shard, and a decision over them all.

    Sketches are made side by side and kept, so that only new shards are looked at again.
    """

    reasons: tuple[str, ...]
    sketch: Callable[[Iterable[Record]], pa.Table]
    """A small table with one line for each row, in order."""
    decide: Callable[[Sequence[Path], int], list[Codes]]
    """From the sketches (Arrow IPC files, memory-mapped by `sketched`) and the recipe's seed: codes for each shard."""


@dataclass(frozen=True)
class Operator:
    """Where an operation lives."""

    module: str
    kind: Kind
    once: bool = False
    """Whether an augmentation adds its rows once, and not to every file of training rows."""

    def function(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(self.module), name)
        return found


def _all(module: str, kind: Kind, *names: str) -> dict[str, Operator]:
    return {name: Operator(f"flywheel.process.{module}", kind) for name in names}


OPERATIONS: dict[str, Operator] = {
    **_all("weak_labels", "rows", "weak_labels", "import_labels"),
    **_all("text", "rows", "normalize_newlines", "normalize_whitespace", "lowercase", "remove_punctuation"),
    **_all("text", "rows", "remove_stop_words", "length_filter"),
    **_all("unicode", "rows", "fix_unicode", "normalize_unicode", "remove_control_characters", "remove_zero_width"),
    **_all("unicode", "rows", "remove_emoji"),
    **_all("markup", "rows", "remove_html", "remove_markdown"),
    **_all("mail", "rows", "remove_email_headers", "remove_signatures"),
    **_all("spelling", "rows", "fix_typos"),
    **_all("language", "rows", "language_filter"),
    **_all("repetition", "rows", "repetition_filter"),
    **_all("quality", "rows", "quality_filter", "c4_filter", "word_length_filter", "missing_filter", "corrupt_filter"),
    **_all("privacy", "rows", "mask_pii"),
    **_all("secrets", "rows", "mask_secrets", "drop_secrets"),
    **_all("toxicity", "rows", "toxicity_filter"),
    **_all("sampling", "corpus", "sample", "balance"),
    **_all("duplicates", "corpus", "exact_dedup", "near_dedup"),
    **_all("contamination", "rows", "decontaminate"),
    **_all("docstrings", "expand", "docstring_pairs"),
    **_all("mix", "rows", "thin"),
    **_all("mix", "augment", "repeat"),
    "plant_canaries": Operator("flywheel.process.canaries", "augment", once=True),
    **_all("images", "rows", "image_resize", "image_normalize", "image_filter"),
    **_all("audio", "rows", "audio_resample", "audio_trim", "audio_loudness", "audio_filter"),
    **_all("augment", "augment", "synonym_replacement", "random_swap", "random_deletion", "back_translation"),
    **_all("augment_media", "augment", "random_rotate", "horizontal_flip", "random_brightness", "random_crop"),
    **_all("augment_media", "augment", "add_noise", "change_speed", "change_pitch"),
}


def sketched(path: Path) -> pa.Table:
    """A sketch as it lies in its file: read from the disk only where it is looked at."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
