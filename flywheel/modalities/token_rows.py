"""Documents and prompt/completion pairs as rows of a fixed number of tokens, for decoder-only models.

Several sequences share a row. `position_ids` start again at 0 with each, and no attention mask is given: transformers
then keeps the sequences of a row from seeing each other (an all-ones mask would turn that off).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from flywheel.artifact import publish
from flywheel.packing import pack
from flywheel.record import LeftOut

IGNORED = -100
"""The label that cross-entropy leaves out."""
COLUMNS = ("input_ids", "labels", "position_ids")
Ids = NDArray[np.int64]
Piece = tuple[Ids, Ids]
"""Token ids and labels of one sequence, both (length,). The label of its first token is never used."""


class TokenRows(Dataset[dict[str, torch.Tensor]]):
    """Packed rows: `input_ids`, `labels` and `position_ids`, each of shape (max_length,)."""

    def __init__(self, sequences: Sequence[Piece], max_length: int, pad: int, left_out: Sequence[LeftOut] = ()) -> None:
        self.left_out = left_out
        """Rows that are in no sequence."""
        rows = pack([len(ids) for ids, _ in sequences], max_length)
        shape = (len(rows), max_length)
        self.input_ids = np.full(shape, pad, dtype=np.int32)
        self.labels = np.full(shape, IGNORED, dtype=np.int32)
        self.position_ids = np.zeros(shape, dtype=np.int32)
        for row, members in enumerate(rows):
            at = 0
            for ids, labels in (sequences[i] for i in members):
                end = at + len(ids)
                self.input_ids[row, at:end] = ids
                self.labels[row, at + 1 : end] = labels[1:]
                self.position_ids[row, at:end] = np.arange(len(ids))
                at = end
            self.position_ids[row, at:] = np.arange(max_length - at)

    @classmethod
    def open(cls, directory: Path) -> TokenRows:
        """What `save` wrote, read from the disk as it is needed: processes share it, and it takes no memory."""
        rows = cls.__new__(cls)
        rows.input_ids, rows.labels, rows.position_ids = (
            np.load(directory / f"{name}.npy", mmap_mode="r") for name in COLUMNS
        )
        rows.left_out = [LeftOut(**row) for row in json.loads((directory / "left_out.json").read_text())]
        return rows

    def save(self, directory: Path) -> None:
        """Write a new directory, whole and durable or not at all."""
        draft = directory.with_name(f".{directory.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name in COLUMNS:
            np.save(draft / f"{name}.npy", getattr(self, name))
        (draft / "left_out.json").write_text(json.dumps([asdict(row) for row in self.left_out]))
        publish(draft, directory)

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(getattr(self, name)[index].astype(np.int64)) for name in COLUMNS}


def kept(
    directory: Path, make: Callable[[], Any], together: Callable[[], object] | None = None, leads: bool = True
) -> Any:
    """The features in `directory`; where there are none, what `make` gives, kept there if it is TokenRows.

    A resumed run does not make them again. Where several processes train together all call this, `together` waits for
    all of them, and the one that `leads` makes them for the others.
    """
    made = None
    if leads and not directory.exists():
        made = make()
        if isinstance(made, TokenRows):
            made.save(directory)
    if together is not None:
        together()
    if directory.exists():
        return TokenRows.open(directory)
    return make() if made is None else made


def windows(documents: Iterable[Ids], max_length: int) -> Iterator[Piece]:
    """Cut each document into sequences of at most `max_length` tokens that overlap by one token, so that every token
    but a document's first is predicted exactly once."""
    for ids in documents:
        for start in range(0, max(len(ids) - 1, 0), max_length - 1):
            piece = ids[start : start + max_length]
            yield piece, piece


def pair(prompt: Ids, completion: Ids, max_length: int) -> Piece | None:
    """Prompt and completion as one sequence whose labels are the completion alone.

    Where it is too long the prompt is shortened; None where the completion leaves no room for a prompt.
    """
    room = max_length - len(completion)
    if room < 2:
        return None
    kept = shorten(prompt, room)
    return (
        np.concatenate([kept, completion]),
        np.concatenate([np.full(len(kept), IGNORED, dtype=np.int64), completion]),
    )


def shorten(prompt: Ids, room: int) -> Ids:
    """At most `room` tokens of a prompt: its first quarter (a signature, an instruction) and its end are kept, and what
    follows the first quarter is cut."""
    if len(prompt) <= room:
        return prompt
    head = room // 4
    return np.concatenate([prompt[:head], prompt[len(prompt) - room + head :]])
