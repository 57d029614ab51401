"""Training: one stage from rows to weights, the same for every modality and exact to the bit after a crash.

The room gives model, features and losses; flywheel.loop runs the steps; here they meet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

from flywheel import adapters
from flywheel.errors import TrainingError
from flywheel.loop import Loop
from flywheel.modalities.base import Modality, Model
from flywheel.modalities.rooms import room as room_of
from flywheel.progress import Progress
from flywheel.recipe import Finetune, Recipe, Train
from flywheel.record import Record, read_rows

Stage = Literal["train", "finetune"]
Features = Mapping[str, Any]


def train(  # noqa: PLR0913 - a step with a parent and a memory
    recipe: Recipe, stage: Stage, rows: Path, start: Path | None, out: Path, work: Path, progress: Progress
) -> dict[str, Any]:
    """Run one stage from the model directory `start` (None: a fresh model) on the rows in the directory `rows`.

    Writes `out/model/` and `out/history.json`, a list of {step, loss, learning_rate}. Checkpoints go to `work` and are
    resumed from: the same rows and recipe give the same bytes in `out`, however often the run was killed, as long as
    machine and number of threads stay. Returns {steps, parameters, loss, seconds, tokens_per_second}.
    Raises TrainingError where there are no rows or the loss is not finite.
    """
    began = time.monotonic()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    room = room_of(recipe.model.modality)
    config = recipe.finetune if stage == "finetune" else recipe.train
    if config is None:
        raise TrainingError("finetune", found="no such section in the recipe", remedy="add one, or leave the stage out")
    last = stage == "finetune" or recipe.finetune is None
    with _deterministic():
        set_seed(recipe.seed)
        model = room.build(recipe, _rows(rows, "train")) if start is None else room.load(start)
        batches = _batches(room, model, config, rows, recipe.seed)
        set_seed(recipe.seed)
        tuner = adapters.attach(model.module, recipe.peft) if last and recipe.peft else None
        loop = Loop(room, model.module, config, recipe.seed, work)
        history = loop.run(batches, progress)
        model.module.to("cpu").eval()
        if tuner is not None:
            model.module = adapters.merge(tuner)
    room.save(model, out / "model")
    (out / "history.json").write_text(json.dumps(history, indent=1))
    return {
        "steps": config.max_steps,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "loss": history[-1]["loss"],
        "seconds": round(time.monotonic() - began, 1),
        "tokens_per_second": round(loop.tokens_per_second),
    }


class Batches(Dataset[Features]):
    """Every feature of a stage in the order of training, so that position alone says what comes: exact resumption.

    Each pass over the features has its own seeded order. A share `replay` of the batches, spread evenly, is drawn from
    the features of the stage before.
    """

    def __init__(
        self, features: Dataset[Features], config: Train, seed: int, replayed: Dataset[Features] | None = None
    ) -> None:
        self._mine = _Shuffled(features, seed)
        self._replayed = _Shuffled(replayed, seed) if replayed is not None else None
        self._share = config.replay if isinstance(config, Finetune) and replayed is not None else 0.0
        self._size = config.per_device_train_batch_size
        self._length = config.max_steps * config.gradient_accumulation_steps * self._size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Features:
        batch, offset = divmod(index, self._size)
        before, upto = int(batch * self._share), int((batch + 1) * self._share)
        if self._replayed is not None and upto > before:
            return self._replayed[before * self._size + offset]
        return self._mine[(batch - before) * self._size + offset]


class _Shuffled:
    """Features without end: pass after pass, each in its own order."""

    def __init__(self, features: Dataset[Features], seed: int) -> None:
        self._features, self._seed = features, seed
        self._count = len(features)  # type: ignore[arg-type]  # map-style features have a length
        self._pass, self._order = -1, np.arange(0)

    def __getitem__(self, index: int) -> Features:
        turn, position = divmod(index, self._count)
        if turn != self._pass:
            self._pass, self._order = turn, np.random.default_rng((self._seed, turn)).permutation(self._count)
        return self._features[int(self._order[position])]


def _batches(room: Modality, model: Model, config: Train, rows: Path, seed: int) -> Batches:
    if not isinstance(config, Finetune):
        return Batches(room.encode(model, _rows(rows, "train"), config.max_length), config, seed)
    features = room.encode(model, _rows(rows, "finetune_train"), config.max_length)
    replayed = room.encode(model, _rows(rows, "train"), config.max_length) if config.replay else None
    return Batches(features, config, seed, replayed)


def _rows(directory: Path, name: str) -> Sequence[Record]:
    rows = list(read_rows(directory / f"{name}.parquet"))
    if not rows:
        raise TrainingError(
            f"the rows of {name}", found="none", expected="at least one", remedy="read the drop reasons of `prepare`"
        )
    return rows


@contextmanager
def _deterministic() -> Iterator[None]:
    """Only kernels that give the same bits every time, where there is a choice; memory is not filled beforehand."""
    choice: Any = torch.utils.deterministic  # its settings are not in its types
    before = torch.are_deterministic_algorithms_enabled(), choice.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    choice.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        choice.fill_uninitialized_memory = before[1]
