"""What is watched while a model trains: a loss that is none, or a sudden one, goes back to the last checkpoint.

The rows of such a step are skipped from then on. The list of skipped steps stands beside the checkpoints, so that a run
that is killed and resumed skips the same ones.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from flywheel.artifact import write_whole
from flywheel.errors import TrainingError

FILE = "skips.json"
WINDOW, ENOUGH = 64, 16
"""Steps whose median a loss is compared with, and how many there must be."""
MOST = 8
"""Steps of a stage that may be skipped."""


class RolledBack(Exception):
    """A step went wrong and is to be skipped: start again from the last checkpoint."""


class Watch:
    """Judges the loss of every step of a stage."""

    def __init__(self, work: Path, max_spike: float | None) -> None:
        self._file, self._max_spike = work / FILE, max_spike
        self.skips: list[dict[str, Any]] = json.loads(self._file.read_text()) if self._file.exists() else []
        """Steps that are skipped: `{"step", "loss", "median"}`; `loss` is text where it is no number."""
        self._skipped = {skip["step"] for skip in self.skips}
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def skipped(self, step: int) -> bool:
        return step in self._skipped

    def judge(self, step: int, loss: float, *, leads: bool = True) -> None:
        """Take a loss for good, or raise RolledBack. One process (`leads`) writes the skip down for all.

        Raises TrainingError where going back does not help: the step before was skipped too, or too many were.
        """
        usual = median(self._recent) if len(self._recent) >= ENOUGH else math.inf
        if math.isfinite(loss) and (self._max_spike is None or loss <= self._max_spike * max(usual, 0.0)):
            self._recent.append(loss)
            return
        if self.skipped(step - 1) or len(self.skips) >= MOST:
            raise TrainingError(
                f"training, step {step}",
                found=f"a loss of {loss:.4g} after {len(self.skips)} skipped steps",
                expected="a finite number" if not math.isfinite(loss) else f"about {usual:.4g}",
                remedy="lower learning_rate, raise warmup_steps, or look at the rows of these steps",
            )
        if leads:
            told: Mapping[str, Any] = {
                "step": step,
                "loss": loss if math.isfinite(loss) else str(loss),
                "median": usual if math.isfinite(usual) else None,
            }
            write_whole(self._file, json.dumps([*self.skips, told], indent=1).encode())
        raise RolledBack(f"step {step}: a loss of {loss:.4g}")

    def state(self) -> list[float]:
        """The recent losses, for a checkpoint."""
        return list(self._recent)

    def load(self, recent: Sequence[float]) -> None:
        """Go on from the recent losses of a checkpoint."""
        self._recent = deque(recent, maxlen=WINDOW)
