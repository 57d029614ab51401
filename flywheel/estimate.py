"""What is said before a training starts: parameters, memory and time against the machine, and a refusal in seconds.

Memory is that of a step on fake tensors (flywheel.footprint) with what stands beside it. A refusal names the smallest
change that makes it fit, found by the same estimate: what is proposed was estimated, not guessed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flywheel import footprint
from flywheel.errors import TrainingError
from flywheel.footprint import Footprint, Sketch
from flywheel.recipe import stage_of
from flywheel.recipe_train import Distill, Dpo, Grpo, Kto, Orpo, Peft, Train
from flywheel.speed import duration

if TYPE_CHECKING:
    from flywheel.modalities.base import Modality
    from flywheel.recipe import Recipe

GB = 1e9
PROCESS = {"cpu": 1.1e9, "cuda": 0.6e9}
"""Bytes of the interpreter with its libraries and what its allocator keeps, or of a CUDA context."""
COMPILED = 0.65
"""Share of the activations of eager execution that compiled code keeps, as benchmarks/estimate.py finds."""
SPARE = 0.05
"""Share of the memory that is left free: allocators need room."""
MFU = {("cpu", True): 0.40, ("cpu", False): 0.25, ("cuda", True): 0.40, ("cuda", False): 0.25}
"""Utilisation that the time is estimated with, by device and whether the step is compiled."""
MOST_PROCESSES = 4096
LOGIT = 8
"""Bytes of a logit and its gradient, for the methods of TRL that hold those of all tokens at once."""


@dataclass(frozen=True)
class Machine:
    """What each training process has. Values of the caller: the core does not ask for devices."""

    memory: int
    """Bytes that one process may take: of its GPU, or its share of the RAM."""
    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = 1
    """On all machines together."""
    bf16: bool = True
    """Whether it multiplies bfloat16 natively."""
    peak: float = 0.0
    """FLOP/s of matrix products in the type that is computed with; 0 where unknown."""


@dataclass(frozen=True)
class Estimate:
    """What a stage takes on a machine."""

    footprint: Footprint
    memory: Mapping[str, int]
    """Bytes of one process by what they are for."""
    machine: Machine
    seconds: float | None
    """For all steps; None where the number of steps or the speed is not known."""

    @property
    def bytes(self) -> int:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.bytes <= self.machine.memory * (1 - SPARE)

    def __str__(self) -> str:
        mine, where = self.footprint, "GPU memory" if self.machine.device == "cuda" else "RAM"
        learn = "" if mine.trainable == mine.parameters else f", {_count(mine.trainable)} of them learn"
        time = f", about {duration(self.seconds)}" if self.seconds is not None else ""
        each = " for each process" if self.machine.processes > 1 else ""
        return (
            f"{_count(mine.parameters)} parameters{learn}; "
            f"{self.bytes / GB:.1f} of {self.machine.memory / GB:.1f} GB of {where}{each}{time}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "parameters": self.footprint.parameters,
            "trainable": self.footprint.trainable,
            "memory": dict(self.memory),
            "bytes": self.bytes,
            "available": self.machine.memory,
            "flops_per_batch": self.footprint.flops,
            "tokens_per_batch": self.footprint.tokens,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Wanted:
    """A stage that is to be trained."""

    room: Modality
    sketch: Sketch
    config: Train
    peft: Peft | None = None
    strategy: Literal["ddp", "fsdp"] = "ddp"
    trained_before: bool = True
    """Whether it starts from learned weights: an adapter over random ones makes no sense."""
    key: str = "train"
    """The section of the recipe."""
    known: dict[Any, Footprint] = field(default_factory=dict, compare=False)
    """Footprints that were measured before."""


def machine(recipe: Recipe, stage: str, peaks: Path, gpu_memory: int | None = None) -> Machine:
    """This machine as a recipe uses it: on GPUs of `gpu_memory` bytes each, or on the CPU.

    `peaks` is a directory where the measured speed of products is kept (under a second, once).
    """
    from flywheel.hardware import free_memory
    from flywheel.methods.rows import computes_bf16
    from flywheel.speed import peak_flops

    wanted, config = recipe.resources, stage_of(recipe, stage)
    device: Literal["cpu", "cuda"] = "cpu" if gpu_memory is None else "cuda"
    bf16 = config.bf16 and computes_bf16(device)
    return Machine(
        memory=free_memory() // wanted.accelerators if gpu_memory is None else gpu_memory,
        device=device,
        processes=wanted.accelerators * wanted.num_nodes,
        bf16=bf16,
        peak=peak_flops(device, "bfloat16" if bf16 else "float32", peaks),
    )


def wanted(recipe: Recipe, stage: str) -> Wanted:
    """The stage `train` or `finetune` of a recipe, from the recipe alone: no rows are read and no weights."""
    from flywheel.modalities.rooms import room as room_of

    room, config = room_of(recipe.model.modality), stage_of(recipe, stage)
    last = stage == "finetune" or recipe.finetune is None
    return Wanted(
        room,
        footprint.sketch(lambda: room.outline(recipe, config.max_length)),
        config,
        recipe.peft if last else None,
        recipe.resources.strategy,
        stage == "finetune" or recipe.model.path is not None,
        stage,
    )


def estimate(asked: Wanted, on: Machine) -> Estimate:
    """Memory of one process at the highest moment of a step, and the time of all steps."""
    found, config = _footprint(asked, on), asked.config
    shared = on.processes if asked.strategy == "fsdp" else 1
    activations = found.activations * (COMPILED if asked.config.torch_compile else 1)
    if shared > 1 and on.bf16:  # each process casts its part of the weights alone
        activations -= min(activations, 2 * found.parameters * (1 - 1 / shared))
    memory = {
        "weights": found.weights // shared,
        "gradients": found.gradients // shared,
        "optimizer": found.optimizer // shared,
        "activations": int(activations),
        "process": int(PROCESS[on.device]),
    }
    if config.ema_decay is not None:
        memory["average"] = found.gradients // shared
    if on.processes > 1 and asked.strategy == "ddp":
        memory["communication"] = found.gradients
    if isinstance(config, Dpo | Kto) and asked.peft is None:
        memory["reference"] = found.weights // shared
    if isinstance(config, Dpo | Kto | Orpo | Grpo):
        memory["logits"] = LOGIT * found.tokens * _vocabulary(asked)
    if isinstance(config, Distill):
        memory["teacher"] = _weights_in(config.teacher)
    return Estimate(found, memory, on, _seconds(asked, found, on))


def check(asked: Wanted, on: Machine) -> Estimate:
    """The estimate of a stage. Raises TrainingError, with the change that would make it fit, where it does not fit."""
    found = estimate(asked, on)
    if found.fits:
        return found
    parts = ", ".join(f"{name} {size / GB:.1f}" for name, size in found.memory.items() if size > 0.05 * GB)
    where = "of GPU memory" if on.device == "cuda" else "of RAM that is free"
    raise TrainingError(
        f"{asked.key}: {_count(found.footprint.parameters)} parameters do not fit into memory",
        found=f"{found.bytes / GB:.1f} GB for each process (GB: {parts})",
        expected=f"at most {on.memory * (1 - SPARE) / GB:.1f} GB, of {on.memory / GB:.1f} GB {where}",
        remedy=_remedy(asked, on),
    )


def _remedy(asked: Wanted, on: Machine) -> str:
    """The first change of each kind that fits; the kinds that keep what is learned come first."""
    floor = estimate(replace(asked, config=_smallest(asked.config)), on)
    kinds: list[Iterator[tuple[str, Wanted, Machine]]] = [_adapters(asked, on), _spread(asked, on)]
    if floor.fits:
        kinds.insert(0, _smaller_batches(asked, on))
    told: list[str] = []
    for changes in kinds:
        fitting = (f"{words} ({f.bytes / GB:.1f} GB)" for words, c, m in changes if (f := estimate(c, m)).fits)
        if first := next(fitting, ""):
            told.append(first)
            if floor.fits:
                break  # this machine will do as it is
    return f"set {', or '.join(told)}" if told else "take a smaller model"


def _smaller_batches(asked: Wanted, on: Machine) -> Iterator[tuple[str, Wanted, Machine]]:
    """The same optimizer steps in smaller pieces, then with activations computed twice."""
    for checkpointing in (asked.config.gradient_checkpointing, True):
        sizes = [asked.config.per_device_train_batch_size] if checkpointing else []
        for size in sizes + _pieces(asked.config):
            if not checkpointing and _far_too_large(asked, on, size):
                continue
            config = _cut(asked.config, size, checkpointing=checkpointing)
            yield _words(asked, config), replace(asked, config=config), on


def _adapters(asked: Wanted, on: Machine) -> Iterator[tuple[str, Wanted, Machine]]:
    """A LoRA adapter instead of all weights, then one over weights in four bits."""
    if not asked.trained_before or not hasattr(asked.sketch.module, "config"):
        return
    quantised = Peft(load_in_4bit=True) if asked.peft is None else asked.peft.model_copy(update={"load_in_4bit": True})
    for words, peft in (("peft: {r: 8}", Peft()), (f"peft: {{r: {quantised.r}, load_in_4bit: true}}", quantised)):
        if asked.peft is None or (peft.load_in_4bit and not asked.peft.load_in_4bit):
            for config in (asked.config, _smallest(asked.config)):
                more = _words(asked, config)
                yield f"{words}{' with ' if more else ''}{more}", replace(asked, config=config, peft=peft), on


def _spread(asked: Wanted, on: Machine) -> Iterator[tuple[str, Wanted, Machine]]:
    """Weights, gradients and optimizer shared out among as few devices as will do (FSDP)."""
    config = _smallest(asked.config)
    changed = replace(asked, config=config, strategy="fsdp")

    def fits(number: int) -> bool:
        return estimate(changed, replace(on, processes=number)).fits

    number = bisect_left(range(MOST_PROCESSES), True, 2, key=fits)
    key = "accelerators" if on.device == "cuda" else "num_nodes"
    words, more = f"resources: {{strategy: fsdp, {key}: {number}}} with as much memory each", _words(asked, config)
    yield f"{words}{' and ' if more else ''}{more}", changed, replace(on, processes=number)


def _far_too_large(asked: Wanted, on: Machine, size: int) -> bool:
    """Whether a batch need not be measured: activations shrink with it at most as much."""
    whole = asked.config.per_device_train_batch_size
    return _footprint(asked, on).activations * COMPILED * size / whole > on.memory


def _pieces(config: Train) -> list[int]:
    """Smaller sizes that divide the batch, the largest first."""
    size = config.per_device_train_batch_size
    return [n for n in range(size - 1, 0, -1) if size % n == 0]


def _cut(config: Train, size: int, *, checkpointing: bool) -> Train:
    """The same rows for each optimizer step, `size` of them at a time."""
    times = config.gradient_accumulation_steps * config.per_device_train_batch_size // size
    change = {"per_device_train_batch_size": size, "gradient_accumulation_steps": times}
    return config.model_copy(update={**change, "gradient_checkpointing": checkpointing})


def _smallest(config: Train) -> Train:
    return _cut(config, 1, checkpointing=True)


def _words(asked: Wanted, config: Train) -> str:
    """What changes, as overrides of the recipe."""
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
    changed = [key for key in keys if getattr(config, key) != getattr(asked.config, key)]
    return " ".join(f"{asked.key}.{key}={str(getattr(config, key)).lower()}" for key in changed)


def _footprint(asked: Wanted, on: Machine) -> Footprint:
    config = asked.config
    size = config.per_device_train_batch_size * (2 if isinstance(config, Dpo | Orpo) else 1)
    several = min(2, config.gradient_accumulation_steps)
    key = (size, several, config.gradient_checkpointing, asked.peft)
    if key not in asked.known:
        change = {"per_device_train_batch_size": size, "gradient_accumulation_steps": several}
        measured = config.model_copy(update=change)
        asked.known[key] = footprint.measure(asked.room, asked.sketch, measured, asked.peft, bf16=on.bf16)
    return asked.known[key]


def _seconds(asked: Wanted, found: Footprint, on: Machine) -> float | None:
    config = asked.config
    if not on.peak or config.num_train_epochs is not None:
        return None
    operations = found.flops * config.gradient_accumulation_steps * config.max_steps
    return operations / (on.peak * MFU[on.device, config.torch_compile])


def _weights_in(checkpoint: str) -> int:
    """Bytes of a checkpoint's weights in float32, from the headers of its safetensors; 0 where it is not here."""
    from safetensors import safe_open

    total = 0
    for file in sorted(Path(checkpoint).glob("*.safetensors")) if Path(checkpoint).is_dir() else ():
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                number = 4
                for side in weights.get_slice(name).get_shape():
                    number *= side
                total += number
    return total


def _vocabulary(asked: Wanted) -> int:
    """Outputs for each token; 0 for a module that has no such head."""
    heads = getattr(asked.sketch.module, "get_output_embeddings", lambda: None)()
    return len(heads.weight) if heads is not None else 0


def _count(number: int) -> str:
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,}"
