"""Rows as they are: the modality's own losses over its own features, in a fixed order that position alone decides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from flywheel.linear_cross_entropy import compiled_alone, has_plain_head
from flywheel.methods.base import Made, Stage, require_rows
from flywheel.modalities.token_rows import kept
from flywheel.recipe_train import Train
from flywheel.record import Record
from flywheel.sharding import processes, rank

Features = Mapping[str, Any]
Losses = Callable[[nn.Module, Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]

_log = logging.getLogger(__name__)


class Rows:
    """Pre-training, further pre-training, supervised fine-tuning, and every modality that has one loss."""

    def make(self, stage: Stage) -> Made:
        config, whole = stage.config, getattr(stage.config, "method", None) == "pretrain"
        together = distributed.barrier if processes() > 1 else None

        def encoded(name: str, rows: Sequence[Record]) -> Any:
            """Made once for all attempts of a stage and all processes, where they can be kept in a file."""
            make = partial(stage.room.encode, stage.model, rows, config.max_length, whole)
            return kept(stage.work / "features" / name, make, together, rank() == 0) if rows else None

        mine = encoded("rows", stage.rows)
        replayed, heldout = encoded("replayed", stage.replayed), encoded("heldout", stage.heldout)
        assert mine is not None
        left_out = [row for found in (mine, replayed) for row in getattr(found, "left_out", ())]
        require_rows(len(mine), left_out)
        length = config.per_device_train_batch_size * config.gradient_accumulation_steps * stage.processes
        steps = config.max_steps
        if config.num_train_epochs is not None:
            steps = max(1, ceil(config.num_train_epochs * len(mine) / length))
        return Made(
            trainer=RowsTrainer,
            arguments=TrainingArguments,
            inputs={
                "train_dataset": Batches(mine, config, steps * length, stage.seed, replayed),
                "eval_dataset": heldout,
                "data_collator": stage.room.collate,
            },
            settings={"max_steps": steps, "train_sampling_strategy": "sequential"},
            objective=Objective(stage.model.module, stage.room.losses, config),
            left_out=left_out,
        )


class Objective(nn.Module):
    """A module together with its losses: what is called with a batch is the loss, also where it is shared out."""

    def __init__(self, module: nn.Module, losses: Losses, config: Train) -> None:
        super().__init__()
        self.module = module
        self._no_split_modules = getattr(module, "_no_split_modules", None)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._bf16 = config.bf16 and computes_bf16(device)
        self._losses = _compiled(module, losses, config.torch_compile and compiles(device))

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        """The sum of the losses of a batch."""
        device = next(iter(batch.values())).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self._bf16):
            return torch.stack(list(self._losses(self.module, batch).values())).sum()


def _compiled(module: nn.Module, losses: Losses, wanted: bool) -> Losses:
    """The losses, compiled where wanted: a language model block by block, which takes as long for one as for all, and
    runs as fast as the whole; others at once."""
    repeated = getattr(module, "_no_split_modules", None) or ()
    blocks = [part for part in module.modules() if type(part).__name__ in repeated] if has_plain_head(module) else []
    for block in blocks:
        block.compile(dynamic=False, disable=not wanted)
    if not wanted:
        return losses
    return compiled_alone(losses) if blocks else torch.compile(losses, dynamic=False)


class RowsTrainer(Trainer):
    """Trains an Objective."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        loss: torch.Tensor = model(**inputs)
        return loss

    def prediction_step(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> tuple[Any, None, None]:
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None


class Batches(Dataset[Features]):
    """Every feature of a stage in the order of training, so that position alone says what comes: exact resumption.

    Each pass over the features has its own seeded order. A share `replay` of the batches, spread evenly, is drawn from
    the features of the stage before.
    """

    def __init__(
        self,
        features: Dataset[Features],
        config: Train,
        length: int,
        seed: int,
        replayed: Dataset[Features] | None = None,
    ) -> None:
        self._mine = _Shuffled(features, seed)
        self._replayed = _Shuffled(replayed, seed) if replayed is not None else None
        self._share = getattr(config, "replay", 0.0) if replayed is not None else 0.0
        self._size, self._length = config.per_device_train_batch_size, length

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


def computes_bf16(device: str) -> bool:
    """Whether bfloat16 products are faster than float32 ones here: emulated, they are several times slower."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@cache
def compiles(device: str) -> bool:
    """Whether torch.compile works here: it needs a C++ compiler and Python's headers."""
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # the compiler of another vendor may fail in any way
        _log.warning("torch.compile does not work here, training runs without it: %s", str(error).splitlines()[0])
        return False
    return True
