"""The loop of training steps: `transformers.Trainer` with a room's losses, whole checkpoints and a quiet voice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from flywheel import checkpoint, optimizers
from flywheel.errors import TrainingError
from flywheel.modalities.base import Modality
from flywheel.progress import Progress
from flywheel.recipe import Train

Losses = Callable[[torch.nn.Module, Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]

_WEIGHTS, _STATE = "model.safetensors", "trainer_state.json"
_log = logging.getLogger(__name__)


class Loop:
    """The steps of one stage on one module, resumed from the newest whole checkpoint in `work`."""

    def __init__(self, room: Modality, module: torch.nn.Module, config: Train, seed: int, work: Path) -> None:
        self._room, self._module, self._config, self._seed, self._work = room, module, config, seed, work
        self.tokens_per_second = 0.0
        """Steady speed of this process, the first interval with its compilation left out; 0 without tokens."""

    def run(self, batches: Dataset[Any], progress: Progress) -> list[dict[str, float]]:
        """Train in place on batches in their order. Returns the loss curve: {step, loss, learning_rate}."""
        voice = _Voice(progress)
        trainer = _Trainer(
            model=self._module,
            args=_arguments(self._config, self._seed, self._work),
            train_dataset=batches,
            data_collator=self._room.collate,
            optimizers=(optimizers.build(self._module, self._config), None),
            callbacks=[voice],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.begin(self._room.losses, self._config, voice)
        found = checkpoint.newest(self._work)
        if found is None:
            trainer.train()
        elif found[0] < self._config.max_steps:
            trainer.train(resume_from_checkpoint=str(found[1]))
        else:
            load_model(self._module, found[1] / _WEIGHTS)
            trainer.state = TrainerState.load_from_json(str(found[1] / _STATE))
        self.tokens_per_second = voice.tokens_per_second
        return [{k: e[k] for k in ("step", "loss", "learning_rate")} for e in trainer.state.log_history if "loss" in e]


class _Trainer(Trainer):
    """Sums the losses of a room, and writes checkpoints whole."""

    model: torch.nn.Module
    loss_is_scaled_for_ga = False

    def begin(self, losses: Losses, config: Train, voice: _Voice) -> None:
        device = self.args.device
        self._losses: Losses = losses
        if config.torch_compile and _compiles(device.type):
            self._losses = torch.compile(losses, dynamic=False)
        self._bf16 = config.bf16 and _computes_bf16(device.type)
        self._voice = voice

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        self._voice.tokens += inputs["input_ids"].numel() if "input_ids" in inputs else 0
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._bf16):
            loss = torch.stack(list(self._losses(model, inputs).values())).sum()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"training, step {self.state.global_step + 1} of {self.state.max_steps}",
                found=f"a loss of {loss.item()}",
                expected="a finite number",
                remedy="lower learning_rate or raise warmup_steps",
            )
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # nobody reads the estimate, and making it walks all parameters at every step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        save_model(self.model, str(Path(output_dir or self.args.output_dir or ".") / _WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_model(self.model, Path(resume_from_checkpoint) / _WEIGHTS)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        def write(directory: Path) -> None:
            self.save_model(str(directory))
            self._save_optimizer_and_scheduler(str(directory))
            self._save_rng_state(str(directory))
            self.state.save_to_json(str(directory / _STATE))

        checkpoint.save(Path(str(self.args.output_dir)), self.state.global_step, write)


class _Voice(TrainerCallback):
    """Tells progress, and puts a point of the loss curve at every checkpoint.

    The Trainer averages the loss since its last point and forgets it on a resume; with a point at each checkpoint a
    resumed curve equals an uninterrupted one.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.tokens = 0
        self.tokens_per_second = 0.0
        self._first: tuple[float, int] | None = None
        self._previous = time.monotonic(), 0

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        control.should_log |= control.should_save
        return control

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in logs:
            return
        now = time.monotonic(), self.tokens
        figures = {"loss": logs["loss"], "learning_rate": logs["learning_rate"]}
        if self.tokens:
            figures["tokens_per_second"] = _speed(self._previous, now)
        if self._first is not None:
            self.tokens_per_second = _speed(self._first, now)
        self._first, self._previous = self._first or now, now
        self._progress(state.global_step, state.max_steps, figures)


def _speed(start: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[1] - start[1]) / max(end[0] - start[0], 1e-9)


def _arguments(config: Train, seed: int, work: Path) -> TrainingArguments:
    shared = (
        "max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate lr_scheduler_type "
        "lr_scheduler_kwargs warmup_steps max_grad_norm logging_steps save_steps"
    )
    arguments = TrainingArguments(
        output_dir=str(work),
        **{name: getattr(config, name) for name in shared.split()},
        seed=seed,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        trackio_space_id=None,
    )
    return arguments


def _computes_bf16(device: str) -> bool:
    """Whether bfloat16 products are faster than float32 ones here: emulated, they are several times slower."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@cache
def _compiles(device: str) -> bool:
    """Whether torch.compile works here: it needs a C++ compiler and Python's headers."""
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # the compiler of another vendor may fail in any way
        _log.warning("torch.compile does not work here, training runs without it: %s", str(error).splitlines()[0])
        return False
    return True
