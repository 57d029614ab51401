"""Documents and prompt/completion pairs as rows of a fixed number of tokens, for decoder-only models.

Several sequences share a row. `position_ids` start again at 0 with each, and no attention mask is given: transformers
then keeps the sequences of a row from seeing each other (an all-ones mask would turn that off).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from flywheel.packing import pack

IGNORED = -100
"""The label that cross-entropy leaves out."""
Ids = NDArray[np.int64]
Piece = tuple[Ids, Ids]
"""Token ids and labels of one sequence, both (length,). The label of its first token is never used."""

log = logging.getLogger(__name__)


class TokenRows(Dataset[dict[str, torch.Tensor]]):
    """Packed rows: `input_ids`, `labels` and `position_ids`, each of shape (max_length,)."""

    def __init__(self, sequences: Sequence[Piece], max_length: int, pad: int) -> None:
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

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        arrays = {"input_ids": self.input_ids, "labels": self.labels, "position_ids": self.position_ids}
        return {name: torch.as_tensor(array[index], dtype=torch.long) for name, array in arrays.items()}


def windows(documents: Iterable[Ids], max_length: int) -> Iterator[Piece]:
    """Cut each document into sequences of at most `max_length` tokens that overlap by one token, so that every token
    but a document's first is predicted exactly once."""
    for ids in documents:
        for start in range(0, max(len(ids) - 1, 0), max_length - 1):
            piece = ids[start : start + max_length]
            yield piece, piece


def pairs(prompts: Sequence[Ids], completions: Sequence[Ids], max_length: int) -> Iterator[Piece]:
    """Prompt and completion as one sequence whose labels are the completion alone.

    Where it is too long the prompt is shortened; a pair whose completion leaves no room for a prompt is left out.
    """
    left_out = 0
    for prompt, completion in zip(prompts, completions, strict=True):
        room = max_length - len(completion)
        if room < 2:
            left_out += 1
            continue
        kept = shorten(prompt, room)
        yield (
            np.concatenate([kept, completion]),
            np.concatenate([np.full(len(kept), IGNORED, dtype=np.int64), completion]),
        )
    if left_out:
        log.warning("%d pairs were left out: their completion alone is longer than %d tokens", left_out, max_length - 2)


def shorten(prompt: Ids, room: int) -> Ids:
    """At most `room` tokens of a prompt: its first quarter (a signature, an instruction) and its end are kept, and what
    follows the first quarter is cut."""
    if len(prompt) <= room:
        return prompt
    head = room // 4
    return np.concatenate([prompt[:head], prompt[len(prompt) - room + head :]])
