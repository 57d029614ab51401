"""What a training method is: which trainer runs a stage, with which arguments, on which inputs.

A method keeps no state outside of the model, the optimizer, the schedule, the random number generators and the position
in its data, so that a resumed run ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flywheel.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer, TrainingArguments

    from flywheel.modalities.base import Modality, Model
    from flywheel.recipe_train import Train
    from flywheel.record import LeftOut, Record


@dataclass(frozen=True)
class Stage:
    """What a method is given."""

    room: Modality
    model: Model
    config: Train
    seed: int
    rows: Sequence[Record]
    """Training rows, at least one."""
    heldout: Sequence[Record]
    """Held-out rows to measure the loss on; empty where it is not measured."""
    replayed: Sequence[Record]
    """Rows of the stage before, to be mixed in; empty where nothing is replayed."""
    work: Path
    """Scratch that survives a kill: what is slow to compute is kept here."""
    processes: int = 1
    """How many train together."""


@dataclass(frozen=True)
class Made:
    """What it answers."""

    trainer: type[Trainer]
    arguments: type[TrainingArguments]
    inputs: Mapping[str, Any]
    """Keyword arguments of the trainer beside its model: `train_dataset`, `eval_dataset`, `data_collator`, ..."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments beside those that every method has from its section of the recipe."""
    objective: nn.Module | None = None
    """What is trained where that is not the model itself, but a module around it that gives a loss."""
    left_out: Sequence[LeftOut] = ()
    """Rows that cannot be learned, and why."""


def require_rows(count: int, left_out: Sequence[LeftOut]) -> None:
    """Raise TrainingError where no row is left to learn from, naming the first that was left out."""
    if count:
        return
    first = next(iter(left_out), None)
    where = f"; first {first.source}/{first.path} ({first.id}): {first.reason} {first.detail}" if first else ""
    raise TrainingError(
        "the rows of this stage",
        found=f"none that can be learned, {len(left_out)} left out{where}",
        expected="at least one",
        remedy="raise max_length where they are too long, or give other rows",
    )


class Method(Protocol):
    """One entry of `flywheel.methods.table.METHODS`."""

    def make(self, stage: Stage) -> Made:
        """The trainer of a stage and its inputs. Raises TrainingError where the rows or the model do not fit."""
