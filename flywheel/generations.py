"""What a model answered before: each prompt is asked once, however many metrics want its answer, and after any kill.

An answer depends on the weights, the prompt, how it is drawn, and on how many times the same prompt was asked before it
in the same list; not on the other prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from flywheel import lines
from flywheel.runtimes.base import Array, Predictor, Sampling

BATCH = 256
"""Prompts that are asked before their answers are kept."""


class Remembered:
    """A predictor of token ids that keeps its answers in files, one for each way of drawing."""

    def __init__(self, predictor: Predictor, directory: Path, mark: str) -> None:
        """`mark` stands for the weights: other weights, other answers."""
        self._predictor, self._directory = predictor, directory / mark
        self.asked = 0
        """Prompts that the model itself had to answer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def forward(self, prompt: Any) -> Array:
        return self._predictor.forward(prompt)

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> list[Array]:
        """New token ids (steps,) for each prompt, as the predictor draws them."""
        names = _names(prompts)
        file = self._directory / f"{_digest(asdict(sampling))}.jsonl"
        known = {name: ids for name, ids in lines.pairs(file) if _are_ids(ids)}
        missing = [i for i in dict(zip(names, range(len(names)), strict=True)).values() if names[i] not in known]
        missing.sort(key=lambda i: len(prompts[i]))  # what is decoded side by side is padded to the longest
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            places = tuple(int(names[i][:15], 16) for i in batch)
            drawn = self._predictor.generate([prompts[i] for i in batch], replace(sampling, places=places))
            self.asked += len(batch)
            fresh = {names[i]: ids.tolist() for i, ids in zip(batch, drawn, strict=True)}
            lines.append(file, *fresh.items())
            known |= fresh
        return [np.array(known[name], dtype=np.int64) for name in names]


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int and 0 <= token < 1 << 31 for token in value)


def _names(prompts: Sequence[Any]) -> list[str]:
    """A name for each prompt and, where it is asked again, for which time."""
    times: Counter[str] = Counter()
    found = []
    for prompt in prompts:
        digest = _digest([int(token) for token in prompt])
        found.append(_digest([digest, times[digest]]))
        times[digest] += 1
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
