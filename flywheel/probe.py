"""What `train.auto` does: try settings that do not change what is learned on a few real batches, and take the fastest.

An optimizer step learns from the same rows under every choice; its bits differ all the same, as sums are rounded in
another order. So a choice belongs to the record of a training: who resumes or reproduces it takes the choice from there
and does not measure again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flywheel import footprint
from flywheel.hardware import free_memory
from flywheel.methods.rows import Objective, compiles, computes_bf16

if TYPE_CHECKING:
    from torch import nn

    from flywheel.modalities.base import Modality, Model
    from flywheel.recipe_train import Train

SECONDS = 30.0
"""For all measurements together; the one that is under way is not cut short."""
EACH = 1.5
"""Seconds for one setting, after its first call."""
WORTH_COMPILING = 40.0
"""Seconds of eager training below which compiling is not even tried: a cold compilation takes about 20."""
SPARE = 0.1
"""Share of the memory that no choice may count on."""
KEYS = (
    "bf16",
    "torch_compile",
    "gradient_checkpointing",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
Setting = Mapping[str, Any]

_log = logging.getLogger(__name__)


def choose(
    room: Modality, model: Model, config: Train, features: Sequence[Mapping[str, Any]], memory: int | None = None
) -> dict[str, Any]:
    """The fastest of some settings on this machine: KEYS, `attention`, and the `table` of what was measured.

    `features` are some of the stage's; `memory` is what the device has in bytes (None: the RAM that is free). The model
    with its adapter is used, on its device, and left as it was: weights, buffers, gradients, random numbers.
    """
    began = time.monotonic()
    with _left_as_it_is(model.module):
        trial = _Trial(room, model.module, config, features, free_memory() if memory is None else memory)
        best = trial.fitting()
        best = trial.best(best, [{**best, "bf16": True}] if computes_bf16(trial.device) else [])
        best = trial.best(best, [{**best, "attention": name} for name in _attentions(model.module)])
        best = trial.sizes(best)
        best = trial.compiled(best)
    table = [{**setting, **figures} for setting, figures in trial.table]
    return {**best, "table": table, "seconds": round(time.monotonic() - began, 1)}


def apply(choice: Setting, config: Train, module: nn.Module) -> Train:
    """The section of the recipe with a choice in it; the module takes its attention from there."""
    if choice.get("attention"):
        module.set_attn_implementation(choice["attention"])  # type: ignore[operator]
    return config.model_copy(update={key: choice[key] for key in KEYS})


@dataclass
class _Trial:
    """Settings on the way to the best one."""

    room: Modality
    module: nn.Module
    config: Train
    features: Sequence[Mapping[str, Any]]
    memory: int
    table: list[tuple[Setting, dict[str, Any]]] = field(default_factory=list)
    """Settings with `seconds` of an optimizer step, `first` for those of the first call, or `left_out` with why."""

    def __post_init__(self) -> None:
        self.device = next(self.module.parameters()).device.type
        self.ends = time.monotonic() + SECONDS

    def fitting(self) -> Setting:
        """Plain settings that fit into memory: smaller batches first, then activations computed twice."""
        size, times = self.config.per_device_train_batch_size, self.config.gradient_accumulation_steps
        start: Setting = {
            "bf16": False,
            "torch_compile": False,
            "gradient_checkpointing": False,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": times,
            "attention": _attention(self.module),
        }
        sizes = [n for n in range(size, 0, -1) if self._may_cut(n)]
        wanted = [{**start, **self._cut(n)} for n in sizes]
        wanted += [{**setting, "gradient_checkpointing": True} for setting in wanted]
        return next((setting for setting in wanted if self._fits(setting)), wanted[-1])

    def best(self, first: Setting, others: Sequence[Setting]) -> Setting:
        """The fastest; what there was no time for is not measured."""
        return min((first, *others), key=lambda setting: self.seconds(setting))

    def sizes(self, best: Setting) -> Setting:
        """Halve and double the batch as long as it gets faster."""
        for factor in (0.5, 2.0):
            while True:
                size = int(best["per_device_train_batch_size"] * factor)
                after = {**best, **self._cut(size)} if size and self._may_cut(size) else best
                if after == best or not self._fits(after) or self.seconds(after) >= self.seconds(best):
                    break
                best = after
        return best

    def compiled(self, best: Setting) -> Setting:
        """Compile where the time that it saves over all steps is more than what it takes."""
        steps, eager = self.config.max_steps, self.seconds(best)
        if eager * steps < WORTH_COMPILING or not compiles(self.device):
            return best
        for attention in dict.fromkeys((best["attention"], "eager" if self.device == "cpu" else best["attention"])):
            after = {**best, "torch_compile": True, "attention": attention if best["attention"] else ""}
            cost = self._measured(after).get("first", 0.0)
            if cost + self.seconds(after) * steps < min(self.seconds(best), eager) * steps:
                best = after
        return best

    def seconds(self, setting: Setting) -> float:
        """Of one optimizer step; infinite where it could not be measured."""
        return float(self._measured(setting).get("seconds", float("inf")))

    def _measured(self, setting: Setting) -> dict[str, Any]:
        for before, figures in self.table:
            if before == setting:
                return figures
        if self.table and time.monotonic() > self.ends:
            return {}
        try:
            found = self._run(setting)
        except torch.OutOfMemoryError:
            found = {"left_out": "out of memory"}
        except Exception as error:  # a kernel that is not there, a compiler that fails
            _log.warning("train.auto leaves %s out: %s", dict(setting), error)
            found = {"left_out": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        self.table.append((setting, found))
        return found

    def _run(self, setting: Setting) -> dict[str, Any]:
        size = setting["per_device_train_batch_size"]
        rows = [self.features[i % len(self.features)] for i in range(size)]
        batch = {name: tensor.to(self.device) for name, tensor in self.room.collate(rows).items()}
        objective = Objective(self.module.train(), self.room.losses, apply(setting, self.config, self.module))
        _checkpoint(self.module, setting["gradient_checkpointing"])

        def step() -> float:
            started = time.perf_counter()
            objective(**batch).backward()
            if self.device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        first, ends = step(), time.monotonic() + EACH
        taken = [step()]
        while time.monotonic() < ends and len(taken) < 10:
            taken.append(step())
        self.module.zero_grad(set_to_none=True)
        pieces = setting["gradient_accumulation_steps"]
        return {"seconds": min(taken) * pieces, "first": max(0.0, first - min(taken))}

    def _fits(self, setting: Setting) -> bool:
        """Whether a step of a setting fits into memory, by its size on fake tensors."""
        drawn = footprint.of_model(self.module, self.features[0])
        config = self.config.model_copy(update={key: setting[key] for key in KEYS})
        found = footprint.measure(self.room, drawn, config, bf16=setting["bf16"])
        beside = found.total if self.device == "cuda" else found.total - found.weights  # weights are in RAM already
        return beside < self.memory * (1 - SPARE)

    def _may_cut(self, size: int) -> bool:
        """A batch of this size divides the rows of an optimizer step; replayed rows come by whole batches."""
        whole = self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps
        return whole % size == 0 and (
            size == self.config.per_device_train_batch_size or not getattr(self.config, "replay", 0.0)
        )

    def _cut(self, size: int) -> dict[str, int]:
        whole = self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps
        return {"per_device_train_batch_size": size, "gradient_accumulation_steps": whole // size}


@contextmanager
def _left_as_it_is(module: nn.Module) -> Iterator[None]:
    """Buffers, mode, attention, gradients and random numbers are what they were when the context ends."""
    buffers = {name: value.detach().clone() for name, value in module.named_buffers()}
    states = random.getstate(), np.random.get_state()
    attention, training = _attention(module), module.training
    checkpointing = any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        module.zero_grad(set_to_none=True)
        module.train(training)
        _checkpoint(module, checkpointing)
        if attention:
            module.set_attn_implementation(attention)  # type: ignore[operator]
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(buffers[name])
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.compiler.reset()  # what was compiled stays in the cache on disk


def _attention(module: nn.Module) -> str:
    """The attention of a transformers model; empty for other modules."""
    config = getattr(module, "config", None)
    return str(getattr(config, "_attn_implementation", "") or "") if hasattr(module, "set_attn_implementation") else ""


def _attentions(module: nn.Module) -> list[str]:
    """Others that it may be given here."""
    now = _attention(module)
    if not now:
        return []
    fast = ["flash_attention_2"] if torch.cuda.is_available() and find_spec("flash_attn") else []
    return [name for name in ("sdpa", "eager", *fast) if name != now]


def _checkpoint(module: nn.Module, wanted: bool) -> None:
    name = "gradient_checkpointing_enable" if wanted else "gradient_checkpointing_disable"
    switch: Callable[..., None] | None = getattr(module, name, None)
    if switch is None:
        return
    if wanted:
        switch(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        switch()
