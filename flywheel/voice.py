"""How a training tells where it is: a beat after every step, and figures at every point of the curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from flywheel.progress import Progress

Beat = Callable[[int], None]
"""Called with the number of steps done."""


def unheard(step: int) -> None:
    """For when nobody listens to the beat."""


class Voice:
    """Counts tokens and tells speed, loss and gradient norm.

    `flops_per_token` and `peak_flops` (FLOP/s) give the model FLOPs utilisation (`mfu`, 0 to 1); 0 where unknown.
    """

    def __init__(self, progress: Progress, beat: Beat, flops_per_token: float = 0.0, peak_flops: float = 0.0) -> None:
        self._progress, self.beat = progress, beat
        self._flops, self._peak = flops_per_token, peak_flops
        self.tokens = 0
        """Tokens that this process has trained on, padding left out."""
        self.tokens_per_second = 0.0
        """Steady speed of this process, the first interval with its compilation left out where there are others; 0
        without tokens."""
        self._first: tuple[float, int] | None = None
        self._previous = time.monotonic(), 0

    def count(self, inputs: Mapping[str, Any] | list[Any]) -> None:
        """Take note of a batch. Rows that answers are still to be drawn for (a list) have no tokens yet."""
        if not isinstance(inputs, Mapping):
            return
        for name, value in inputs.items():
            if name.endswith("input_ids") and torch.is_tensor(value):
                mask = inputs.get(name.removesuffix("input_ids") + "attention_mask")
                self.tokens += int(mask.sum()) if torch.is_tensor(mask) else value.numel()

    def tell(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        """Pass on a point of the curve, with the speed since the last one."""
        figures = {name: value for name, value in logs.items() if name != "epoch"}
        now = time.monotonic(), self.tokens
        if "loss" in logs and self.tokens:
            speed = _speed(self._previous, now)
            figures["tokens_per_second"] = speed
            if self._flops and self._peak:
                figures["mfu"] = speed * self._flops / self._peak
        if "loss" in logs:
            self.tokens_per_second = _speed(self._first or self._previous, now)
            self._first, self._previous = self._first or now, now
        self._progress(step, steps, figures)

    @property
    def mfu(self) -> float:
        """Utilisation at the steady speed, 0 where unknown."""
        return self.tokens_per_second * self._flops / self._peak if self._peak else 0.0


def _speed(start: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[1] - start[1]) / max(end[0] - start[0], 1e-9)
