"""What one training step takes, found without doing it: a step on fake tensors, which have shapes and no memory.

`torch`'s FakeTensorMode runs the very code of room, adapter and optimizer, so that no formula has to know a model. The
storages that are alive are added up as they come and go; products are counted by torch's FlopCounterMode. Blocks that
repeat are cut to a few and the rest is extrapolated: that a 70-billion-parameter model cannot fit is known in seconds.

Not covered: what torch.compile saves (eager is measured), memory that allocators hold in reserve, and the activations
of a step that depends on values, which are then left out.
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from flywheel.modalities.base import Modality
    from flywheel.recipe_train import Peft, Train

Batch = Mapping[str, torch.Tensor]
Losses = Callable[[nn.Module, Batch], Mapping[str, torch.Tensor]]
_log = logging.getLogger(__name__)

SHORT, LONG = 2, 4
"""Repeated blocks that are run instead of more; the difference is what one block takes."""
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
"""What a step raises that cannot be done with shapes alone."""
NF4_BYTES = 0.5 + 4 / 64
"""Of a weight in four bits with a float32 scale for each 64 (Dettmers et al. 2023)."""


@dataclass(frozen=True)
class Footprint:
    """Of one process: numbers of weights, and bytes on the device that trains."""

    parameters: int
    trainable: int
    weights: int
    """Bytes."""
    gradients: int
    """Bytes."""
    optimizer: int
    """Bytes of the optimizer's state."""
    activations: int
    """Bytes beside these at the highest moment: what the backward pass needs, and temporaries."""
    flops: int
    """Floating-point operations of one batch, forward and backward."""
    tokens: int
    """Tokens of one batch; 0 where there are none."""

    @property
    def total(self) -> int:
        """Bytes at the highest moment of a step."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Sketch:
    """A module on the device `meta`, which has shapes alone, and one feature of the shapes that it learns from."""

    module: nn.Module
    feature: Mapping[str, Any]


def sketch(outline: Callable[[], tuple[nn.Module, Mapping[str, Any]]]) -> Sketch:
    """Make a module without weights: no memory is taken and no random number drawn."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return Sketch(*outline())


def of_model(module: nn.Module, feature: Mapping[str, Any]) -> Sketch:
    """A sketch of a module that has its weights, which are neither copied nor changed."""
    return Sketch(_copied(module, _meta), feature)


def measure(room: Modality, drawn: Sketch, config: Train, peft: Peft | None = None, *, bf16: bool) -> Footprint:
    """What steps as `config` wants them take, with an adapter where there is `peft`. The sketch stays as it is."""
    module = _copied(drawn.module, _meta).train()
    with torch.random.fork_rng(devices=[]):
        if peft is not None:
            _adapt(module, peft)
        sizes = _sizes(module, peft)
        if config.gradient_checkpointing:
            _checkpoint(module)
        mode = FakeTensorMode()
        module = _copied(module, partial(_fake, mode))
        rows = room.collate([drawn.feature] * config.per_device_train_batch_size)
        batch = {name: _fake(mode, tensor) for name, tensor in rows.items()}
        gradients = sum(p.nbytes for p in module.parameters() if p.requires_grad)
        try:
            with mode:
                step = _Step(room.losses, module, batch, config, bf16)
                optimizer, *beside, operations = _extrapolated(module, step.run)
        except NEEDS_VALUES as error:
            _log.info("activations are not estimated, as the step depends on values: %s", error)
            optimizer, beside, operations = 2 * gradients, [0], 6 * sizes[1] * _tokens(batch)
    activations = max(0, max(beside) - gradients - optimizer)
    return Footprint(*sizes, gradients, optimizer, activations, operations, _tokens(batch))


def flops(room: Modality, module: nn.Module, batch: Batch) -> int:
    """Floating-point operations of the forward and backward pass of one batch: what MFU is measured by.

    Work that gradient checkpointing does twice counts once, as is the custom (Chowdhery et al. 2022).
    """
    mode = FakeTensorMode()
    module = _copied(module, partial(_fake, mode)).train()
    for part in module.modules():
        if hasattr(part, "gradient_checkpointing"):
            part.gradient_checkpointing = False  # type: ignore[assignment]
    shapes = {name: _fake(mode, tensor) for name, tensor in batch.items()}
    with torch.random.fork_rng(devices=[]), mode, FlopCounterMode(display=False) as counter:
        _total(room.losses(module, shapes)).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class _Step:
    """Two steps: the second has the optimizer's state from the start, as all later ones."""

    losses: Losses
    module: nn.Module
    batch: Batch
    config: Train
    bf16: bool

    def run(self) -> tuple[int, int, int, int]:
        """Bytes of the optimizer's state; bytes beside the weights at the highest moment, before the backward pass
        reaches the first blocks and after that; operations of a batch."""
        from flywheel import optimizers

        optimizer = optimizers.build(self.module, self.config)
        with _Alive(self.module) as alive:
            with FlopCounterMode(display=False) as counter:
                self._backward(alive)
            before = alive.now
            optimizer.step()
            state = alive.now - before
            if self.config.gradient_accumulation_steps == 1:
                self.module.zero_grad(set_to_none=True)
            self._backward(alive)
            alive.unhook()
        self.module.zero_grad(set_to_none=True)
        return state, *alive.highest, int(counter.get_total_flops())

    def _backward(self, alive: _Alive) -> None:
        alive.late = False
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = _total(self.losses(self.module, self.batch))
        loss.backward()  # type: ignore[no-untyped-call]


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive, but those of the weights and of what was there before."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.highest = [0, 0]
        """Before the backward pass reaches the first blocks, and after that: each grows evenly with the blocks."""
        self.late = False
        held = [*module.parameters(), *module.buffers()]
        self._known = weakref.WeakSet(t.untyped_storage() for t in held)
        learned = [p for stack in _stacks(module, 1) for p in stack[1].parameters() if p.requires_grad]
        hooked = (p.register_post_accumulate_grad_hook(self._reached) for p in learned)  # type: ignore[no-untyped-call]
        self._hooks = list(hooked)

    def _reached(self, _: torch.Tensor) -> None:
        self.late = True

    def unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(t.untyped_storage()) for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage(), given)
        return made

    def _add(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        if storage in self._known or id(storage) in given:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.highest[self.late] = max(self.highest[self.late], self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


def _extrapolated(module: nn.Module, run: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    """What `run` finds with all blocks, from runs with a few of each stack of them."""
    stacks = _stacks(module, 2 * LONG)
    if not stacks:
        return run()
    with _cut(stacks, SHORT):
        short = run()
    with _cut(stacks, LONG):
        long = run()
    times = (sum(map(len, stacks)) - LONG * len(stacks)) / ((LONG - SHORT) * len(stacks))
    return tuple(int(b + (b - a) * times) for a, b in zip(short, long, strict=True))


def _stacks(module: nn.Module, least: int) -> list[nn.ModuleList]:
    """Lists of more than so many blocks of one size, such as the layers of a decoder."""
    return [
        part
        for part in module.modules()
        if isinstance(part, nn.ModuleList) and len(part) > least and len({_count(block) for block in part[1:]}) == 1
    ]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@contextmanager
def _cut(stacks: list[nn.ModuleList], number: int) -> Iterator[None]:
    """The first few blocks of each stack alone."""
    held = [stack._modules for stack in stacks]
    for stack, blocks in zip(stacks, held, strict=True):
        stack._modules = {str(i): blocks[str(i)] for i in range(number)}
    try:
        yield
    finally:
        for stack, blocks in zip(stacks, held, strict=True):
            stack._modules = blocks


def _sizes(module: nn.Module, peft: Peft | None) -> tuple[int, int, int]:
    """Weights, those that learn, and bytes of all."""
    parameters, trainable, size = 0, 0, sum(b.nbytes for b in module.buffers())
    quantised: set[int] = set()
    if peft is not None and peft.load_in_4bit:
        layers: list[Any] = list(module.modules())
        base = [m.get_base_layer() for m in layers if hasattr(m, "get_base_layer")]
        quantised = {id(layer.weight) for layer in base if isinstance(layer, nn.Linear)}
    for parameter in module.parameters():
        parameters += parameter.numel()
        trainable += parameter.numel() if parameter.requires_grad else 0
        size += int(parameter.numel() * NF4_BYTES) if id(parameter) in quantised else parameter.nbytes
    return parameters, trainable, size


def _adapt(module: nn.Module, peft: Peft) -> None:
    """Put a new adapter in, whatever its values: those of the weights do not matter either."""
    from flywheel import adapters

    with torch.device("meta"):
        adapters.outline(module, peft)


def _checkpoint(module: nn.Module) -> None:
    """Switch gradient checkpointing on where the module offers it."""
    enable: Callable[..., None] | None = getattr(module, "gradient_checkpointing_enable", None)
    if enable is not None:
        enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _copied(module: nn.Module, convert: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A copy whose weights and buffers are converted instead of copied; what is shared stays shared."""
    memo: dict[int, Any] = {id(b): convert(b) for b in module.buffers()}
    memo |= {id(p): nn.Parameter(convert(p.detach()), requires_grad=p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(module, memo)


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


def _fake(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of this shape that says of itself to be on the CPU, whose code is run."""
    return FakeTensor(mode, _meta(tensor), torch.device("cpu"))


def _total(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def _tokens(batch: Batch) -> int:
    return batch["input_ids"].numel() if "input_ids" in batch else 0
