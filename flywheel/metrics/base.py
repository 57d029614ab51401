"""What a metric may ask of the model that is measured: in strings, rows and pictures, never by its modality.

A metric that a recipe names under `evaluate.metrics` is a function `name(exam, *, argument=default) -> list[Metric]`
in the module that `flywheel.metrics.table` gives; its keyword arguments are those of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numpy.typing import NDArray

from flywheel.record import Record
from flywheel.runtimes.base import Sampling

if TYPE_CHECKING:
    from flywheel.metrics.image import Judge

Array = NDArray[Any]
ANSWER_TOKENS = 48
"""Longest answer that is scored."""


class Likelihood(NamedTuple):
    """How likely a completion is after its prompt."""

    nats: float
    """Log-probability of all its tokens."""
    tokens: int


class Speaker(Protocol):
    """A language model, asked in strings. Long lists are decoded in batches, and what was drawn once is kept."""

    def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        """How each text goes on. The same prompt given several times is drawn several times, each draw another."""

    def answer(self, rows: Sequence[Record], sampling: Sampling) -> list[str]:
        """The answer to the prompt, or to the conversation up to its last answer, of each row."""

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Likelihood]:
        """How likely each completion is right after its prompt."""


class Painter(Protocol):
    """A model of pictures. What was drawn once is kept."""

    @property
    def judge(self) -> Judge:
        """The classifier that its pictures are judged by."""

    def pictures(self, rows: Sequence[Record], sampling: Sampling) -> tuple[Array, Array]:
        """A generated and the real picture for each row, both (rows, channels, height, width) in [0, 1]."""

    def real(self, rows: Sequence[Record]) -> Array:
        """The real picture of each row, (rows, channels, height, width) in [0, 1]."""


@dataclass(frozen=True)
class Exam:
    """What a metric is given."""

    heldout: Sequence[Record]
    """Held-out rows, those of the second stage among them."""
    train: Sequence[Record]
    """Training rows, for what must not be remembered."""
    num_samples: int
    """The most examples to draw answers for, as `evaluate.num_samples` says."""
    sampling: Sampling
    """How samples are drawn, as `evaluate.generation` says."""
    seed: int
    speaker: Speaker | None = None
    painter: Painter | None = None
    kept: Path | None = None
    """A directory for what a metric asks of others, so that it asks once."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of environment variables that a recipe names: secrets, for whom they are meant and nowhere else."""

    @property
    def greedy(self) -> Sampling:
        """How answers are drawn that are compared with references: one answer serves every such metric."""
        return Sampling(max_new_tokens=ANSWER_TOKENS)
