"""The loop of training steps: the `transformers.Trainer` of a method, with whole checkpoints and exact resumption.

Everything that the next step depends on is in a checkpoint: trainable weights and buffers, optimizer, schedule, random
number generators of every process, position in the data, moving averages, recent losses, the best loss so far. So a
resumed run ends with the bits of an uninterrupted one, on the same kind of machine and number of threads.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import PrinterCallback

from flywheel import checkpoint, optimizers
from flywheel.methods.base import Made
from flywheel.recipe_train import Train
from flywheel.sharding import sharding
from flywheel.voice import Voice
from flywheel.watch import RolledBack, Watch

WEIGHTS, AVERAGE, STATE, OURS = "model.safetensors", "average.safetensors", "trainer_state.json", "loop-{}.json"
STOP = threading.Event()
"""Set when the process is asked to end: the loop writes a checkpoint after the present step and stops."""


class Stopped(Exception):
    """Training was asked to end before its last step; it continues from the checkpoint that it left."""


class Loop:
    """The steps of one stage, resumed from the newest whole checkpoint in `work`."""

    def __init__(self, made: Made, module: nn.Module, config: Train, work: Path, voice: Voice) -> None:
        self.made, self.config, self.work, self.voice = made, config, work, voice
        self.module = module if made.objective is None else made.objective
        self.watch = Watch(work, config.max_loss_spike)
        self.average: dict[str, torch.Tensor] = {}
        self.best: tuple[int, float] | None = None
        """Step and value of the best loss on held-out rows."""
        self.worse = 0
        """Measurements since then."""
        self.steps = 0
        """Steps that were made in the end."""
        self.shared_out = False
        """Whether each process holds but its part of the weights."""

    def run(self, seed: int, strategy: str) -> list[dict[str, float]]:
        """Train in place. Returns the curve: {step, loss, learning_rate, grad_norm}, and {step, eval_loss}.

        Raises RolledBack where a step went wrong and Stopped where STOP was set: both continue when run again.
        """
        trainer = self._trainer(seed, strategy)
        found = checkpoint.newest(self.work)
        done = found is not None and found[0] >= trainer.state.max_steps
        if found is not None and done and not trainer.is_fsdp_enabled:
            trainer.restore(found[1])
        else:
            trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
        if STOP.is_set() and trainer.state.global_step < trainer.state.max_steps and not self.gives_up:
            raise Stopped
        self._choose(trainer)
        self.shared_out = trainer.is_fsdp_enabled
        self.steps = trainer.state.global_step
        curve = ("step", "loss", "learning_rate", "grad_norm", "eval_loss")
        return [
            {k: e[k] for k in curve if k in e} for e in trainer.state.log_history if e.keys() & {"loss", "eval_loss"}
        ]

    @property
    def gives_up(self) -> bool:
        """Whether the loss on held-out rows has not become better for long enough."""
        patience = self.config.early_stopping_patience
        return patience is not None and self.worse >= patience

    def measured(self, step: int, loss: float) -> bool:
        """Take a measurement of the loss on held-out rows. Whether it is the best one so far."""
        better = self.best is None or loss < self.best[1]
        self.best, self.worse = ((step, loss), 0) if better else (self.best, self.worse + 1)
        return better

    def update_average(self) -> None:
        """Move the averages towards the weights."""
        if self.config.ema_decay is not None:
            trained = dict(_trained(self.module))
            torch._foreach_lerp_(
                [self.average[name] for name in trained], list(trained.values()), 1 - self.config.ema_decay
            )

    def _trainer(self, seed: int, strategy: str) -> Exact:
        cls: type[Exact] = type(f"Exact{self.made.trainer.__name__}", (Exact, self.made.trainer), {})
        arguments = self.made.arguments(
            **{**_common(self.config), **sharding(strategy), **self.made.settings},
            output_dir=str(self.work),
            seed=seed,
        )
        trainer = cls(model=self.module, args=arguments, **self.made.inputs)
        trainer.remove_callback(PrinterCallback)
        trainer.loop = self
        trainer.add_callback(_Steps(trainer))
        # The number of steps, which only the data tell where the recipe gives epochs.
        *_, steps = trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())
        trainer.state.max_steps = steps
        if self.config.ema_decay is not None:
            self.average = {name: value.detach().clone() for name, value in _trained(self.module)}
        return trainer

    def _choose(self, trainer: Exact) -> None:
        """Put the result into the module: the best checkpoint, the averages, or the weights as they are."""
        if self.config.load_best_model_at_end and self.best and self.best[0] != trainer.state.global_step:
            best = self.work / f"{checkpoint.PREFIX}{self.best[0]}"
            if not checkpoint.whole(best):
                for path in checkpoint.all_in(self.work):
                    shutil.rmtree(path)
                raise RolledBack(f"the best checkpoint, {best.name}, is damaged")
            trainer.load_weights(best)
        if self.average:
            load_into(self.module, self.average)


class Exact(Trainer):
    """What the trainer of every method gets: whole checkpoints, exact resumption, no step with a loss that is none."""

    model: nn.Module
    loop: Loop
    _step_loss: torch.Tensor | None = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = optimizers.build(self.model if model is None else model, self.loop.config)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        if self.loop.watch.skipped(self.state.global_step + 1):
            return torch.zeros((), device=self.args.device)
        self.loop.voice.count(inputs)
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        if self.accelerator.gradient_state.sync_gradients:
            self._judge(self._step_loss)
            self._step_loss = None
        return loss

    def _judge(self, loss: torch.Tensor) -> None:
        """All processes judge the mean of their losses, and end together where one is asked to."""
        if self.args.world_size > 1:
            said = torch.stack(
                [loss.float() / self.args.world_size, torch.tensor(float(STOP.is_set()), device=loss.device)]
            )
            distributed.all_reduce(said)
            loss = said[0]
            if said[1].item():
                STOP.set()
        try:
            self.loop.watch.judge(self.state.global_step + 1, loss.item(), leads=self.args.process_index == 0)
        except RolledBack:
            if self.args.world_size > 1:
                distributed.barrier()  # the skip is written down before anyone leaves
            raise

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # nobody reads the estimate, and making it walks all parameters at every step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Trainable weights and buffers. What is shared out among processes `_save_optimizer_and_scheduler` writes."""
        if not self.is_fsdp_enabled:
            save_file(dict(_kept(self.model)), Path(output_dir or ".") / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_into(self.model, load_file(Path(resume_from_checkpoint) / WEIGHTS))

    def load_weights(self, directory: Path) -> None:
        """The weights of a checkpoint, and their averages."""
        self._load_from_checkpoint(str(directory), self.model_wrapped)
        if self.loop.average:
            self.loop.average = self._averages(directory)

    def _averages(self, directory: Path) -> dict[str, torch.Tensor]:
        return {name: value.to(self.args.device) for name, value in load_file(directory / AVERAGE).items()}

    def restore(self, directory: Path) -> None:
        """Everything that the result depends on, of a checkpoint after the last step."""
        self._load_from_checkpoint(str(directory))
        self.state = TrainerState.load_from_json(str(directory / STATE))
        self.take_up(directory)

    def take_up(self, directory: Path) -> None:
        """The loop's own part of a checkpoint."""
        ours = json.loads((directory / OURS.format(self.args.process_index)).read_text())
        self.loop.watch.load(ours["recent"])
        self.loop.best, self.loop.worse = ours["best"] and tuple(ours["best"]), ours["worse"]
        self._tr_loss = torch.tensor(ours["loss_sum"], device=self.args.device)
        self._globalstep_last_logged = ours["last_logged"]
        if self.loop.average:
            self.loop.average = self._averages(directory)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, alone, leads = self.state.global_step, self.args.world_size == 1, self.args.process_index == 0

        def write(directory: Path) -> None:
            if leads:
                self.save_model(str(directory))
                self.state.save_to_json(str(directory / STATE))
                if self.loop.average:
                    save_file(self.loop.average, directory / AVERAGE)
            (directory / OURS.format(self.args.process_index)).write_text(json.dumps(self._ours()))
            self._save_optimizer_and_scheduler(str(directory))
            self._save_rng_state(str(directory))

        together = None if alone else distributed.barrier
        best = {self.loop.best[0]} if self.loop.best and self.loop.config.load_best_model_at_end else set()
        checkpoint.save(self.loop.work, step, write, keep=best, together=together, leads=leads)

    def _ours(self) -> dict[str, Any]:
        return {
            "recent": self.loop.watch.state(),
            "best": self.loop.best,
            "worse": self.loop.worse,
            "loss_sum": self._tr_loss.item(),
            "last_logged": self._globalstep_last_logged,
        }


class _Steps(TrainerCallback):
    """What happens between steps."""

    def __init__(self, trainer: Exact) -> None:
        self._trainer, self._loop = trainer, trainer.loop

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if state.global_step:  # resumed: the Trainer itself forgets these
            self._trainer.take_up(self._loop.work / f"{checkpoint.PREFIX}{state.global_step}")

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._loop.update_average()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        self._loop.voice.beat(state.global_step)
        if STOP.is_set():
            control.should_save = control.should_training_stop = True
        return control

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self._loop.voice.tell(state.global_step, state.max_steps, logs)

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> TrainerControl:
        better = self._loop.measured(state.global_step, metrics["eval_loss"])
        control.should_save |= better and self._loop.config.load_best_model_at_end
        control.should_training_stop |= self._loop.gives_up
        self._loop.voice.tell(state.global_step, state.max_steps, {"eval_loss": metrics["eval_loss"]})
        return control


def _common(config: Train) -> dict[str, Any]:
    """The TrainingArguments that every method has."""
    shared = (
        "per_device_train_batch_size gradient_accumulation_steps learning_rate lr_scheduler_type lr_scheduler_kwargs "
        "warmup_steps max_grad_norm logging_steps save_steps dataloader_num_workers"
    )
    length = {"max_steps": config.max_steps}
    if config.num_train_epochs is not None:
        length = {"num_train_epochs": config.num_train_epochs, "max_steps": -1}  # type: ignore[dict-item]
    measured = {}
    if config.eval_steps is not None:
        size = config.per_device_train_batch_size
        measured = {"eval_strategy": "steps", "eval_steps": config.eval_steps, "per_device_eval_batch_size": size}
    return {
        **{name: getattr(config, name) for name in shared.split()},
        **length,
        **measured,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
        "prediction_loss_only": True,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "trackio_space_id": None,
    }


def _trained(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, value) for name, value in module.named_parameters() if value.requires_grad]


def _kept(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Trainable weights and the buffers that belong to the state of a module; what is frozen is made anew."""
    states = module.state_dict(keep_vars=True)
    seen = {id(value) for _, value in module.named_parameters()}
    buffers = [(name, value) for name, value in states.items() if torch.is_tensor(value) and id(value) not in seen]
    return [(name, value.detach().contiguous()) for name, value in (*_trained(module), *buffers)]


@torch.no_grad()
def load_into(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into the tensors of a module that have their names."""
    places = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    for name, value in values.items():
        places[name].copy_(value)
