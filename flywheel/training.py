"""Training: one stage from rows to weights, the same for every modality and exact to the bit after a crash.

The room gives model and features, the method a trainer for them, flywheel.loop runs its steps; here they meet.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

from flywheel import adapters, estimate, probe
from flywheel.artifact import write_whole
from flywheel.errors import TrainingError
from flywheel.hardware import hardware
from flywheel.loop import Loop, load_into
from flywheel.methods.base import Stage
from flywheel.methods.table import method
from flywheel.modalities.base import Modality, Model
from flywheel.modalities.rooms import room as room_of
from flywheel.progress import Progress
from flywheel.recipe import Recipe, stage_of
from flywheel.recipe_train import Train
from flywheel.record import LeftOut, Record, located, read_rows
from flywheel.sharding import full_weights, meet, processes, rank
from flywheel.speed import flops_per_token
from flywheel.voice import Beat, Voice, unheard

Name = Literal["train", "finetune"]
Opened = tuple[Model, adapters.Adapter | None]
MEASURED, PROBED = 256, 64
"""Most held-out rows that the loss is measured on between steps; rows that `auto` measures with."""


def train(  # noqa: PLR0913 - a step with a parent and a memory
    recipe: Recipe,
    stage: Name,
    rows: Path,
    start: Path | None,
    out: Path,
    work: Path,
    progress: Progress,
    beat: Beat = unheard,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Run one stage from the model directory `start` (None: a fresh model) on the rows in the directory `rows`.

    Writes `out/model/`, `out/history.json`, a list of {step, loss, learning_rate, grad_norm} and {step, eval_loss}, and
    `out/left.jsonl`, the rows that could not be learned. Checkpoints go to `work` and are resumed from: the same rows
    and recipe give the same bytes in `out`, however often the run was killed, as long as machine and number of threads
    stay. Of several processes that train together each calls this, and the first one writes.

    `kept` is a directory for what is measured once on a machine. Returns {steps, parameters, trained, loss, seconds,
    tokens_per_second, mfu, expected, hardware, choice, skipped, left_out}; empty in other processes than the first.
    Raises TrainingError where the stage does not fit into memory, there are no rows or no loss is finite, and
    RolledBack and Stopped (flywheel.loop), after which the same call continues.
    """
    began = time.monotonic()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    config = stage_of(recipe, stage)
    room = room_of(recipe.model.modality)
    on = estimate.machine(recipe, stage, kept or work, _gpu_memory())
    expected = estimate.check(estimate.wanted(recipe, stage), on)

    def opened() -> Opened:
        return _opened(recipe, stage, room, rows, start)

    meet()
    with _deterministic():
        model, adapter = opened()
        choice = _choice(room, model, config, partial(_rows, rows, _files(stage)[0]), work)
        config = probe.apply(choice, config, model.module) if choice else config
        voice = Voice(progress, beat, flops_per_token(model.module, config.max_length), on.peak)
        _keep_activations(model.module, config)
        made = method(config).make(_inputs(recipe, stage, room, model, config, rows, work))
        loop = Loop(made, model.module, config, work, voice)
        history = loop.run(recipe.seed, recipe.resources.strategy)
        model, adapter = _gathered(loop, opened) if loop.shared_out else (model, adapter)
    if rank() != 0:
        return {}
    trained = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    _save(room, model, adapter, out)
    (out / "history.json").write_text(json.dumps(history, indent=1))
    return {
        "steps": loop.steps,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "trained": trained,
        "loss": next((point["loss"] for point in reversed(history) if "loss" in point), None),
        "seconds": round(time.monotonic() - began, 1),
        "tokens_per_second": round(voice.tokens_per_second * processes()),
        "mfu": round(voice.mfu, 4),
        "expected": expected.as_json(),
        "hardware": hardware(),
        "choice": choice,
        "skipped": loop.watch.skips,
        "left_out": _left_out(made.left_out, out),
    }


def _opened(recipe: Recipe, stage: Name, room: Modality, rows: Path, start: Path | None) -> Opened:
    """The model that a stage starts from, with the adapter that the last stage may have."""
    set_seed(recipe.seed)
    model = room.build(recipe, _rows(rows, "train")) if start is None else room.load(start)
    set_seed(recipe.seed)
    last = stage == "finetune" or recipe.finetune is None
    if recipe.peft is None or not last:
        return model, None
    return model, adapters.attach(model.module, recipe.peft, recipe.model.path or "")


def _gathered(loop: Loop, opened: Callable[[], Opened]) -> Opened:
    """A model with the weights that were shared out, in the first process; all take part."""
    weights = full_weights(loop.module)
    model, adapter = opened()
    if rank() == 0:
        load_into(model.module, {name.removeprefix("module."): value for name, value in weights.items()})
    return model, adapter


def _save(room: Modality, model: Model, adapter: adapters.Adapter | None, out: Path) -> None:
    """The adapter by itself, and the model with the adapter merged."""
    model.module.to("cpu").eval()
    if adapter is not None:
        adapters.save(adapter, out / "adapter")
        model.module = adapters.merge(adapter)
    room.save(model, out / "model")


def _inputs(  # noqa: PLR0913 - what a method is given
    recipe: Recipe, name: Name, room: Modality, model: Model, config: Train, rows: Path, work: Path
) -> Stage:
    mine, held = _files(name)
    heldout: Sequence[Record] = []
    if config.eval_steps is not None:
        found = _rows(rows, held)
        heldout = found[:: max(1, len(found) // MEASURED)][:MEASURED]
    replays = name == "finetune" and getattr(config, "replay", 0.0) > 0
    return Stage(
        room=room,
        model=model,
        config=config,
        seed=recipe.seed,
        rows=_rows(rows, mine),
        heldout=heldout,
        replayed=_rows(rows, "train") if replays else (),
        work=work,
        processes=processes(),
    )


def _files(stage: Name) -> tuple[str, str]:
    """The names of a stage's rows: to learn from, and held out."""
    return ("finetune_train", "finetune_heldout") if stage == "finetune" else ("train", "heldout")


def _choice(
    room: Modality, model: Model, config: Train, rows: Callable[[], Sequence[Record]], work: Path
) -> dict[str, Any]:
    """What `auto` chose by measuring, once for all attempts of a stage; empty without it."""
    if not getattr(config, "auto", False):
        return {}
    if processes() > 1:
        raise TrainingError(
            "train.auto",
            found=f"{processes()} processes, which would choose apart",
            remedy="run it with one, and write what it chose into the recipe",
        )
    file = work / "auto.json"
    if not file.exists():
        features: Any = room.encode(model, rows()[:PROBED], config.max_length)
        found = probe.choose(room, model, config, [features[i] for i in range(min(len(features), PROBED))])
        write_whole(file, json.dumps(found, indent=1).encode())
    return dict(json.loads(file.read_text()))


def _gpu_memory() -> int | None:
    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def _rows(directory: Path, name: str) -> Sequence[Record]:
    path = located(directory, name)
    rows = list(read_rows(path)) if path else []
    if not rows:
        raise TrainingError(
            f"the rows of {name}", found="none", expected="at least one", remedy="read the drop reasons of `prepare`"
        )
    return rows


def _left_out(rows: Sequence[LeftOut], out: Path) -> dict[str, int]:
    """Write down the rows that could not be learned; how many for each reason."""
    if rows:
        (out / "left.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return dict(Counter(row.reason for row in rows))


def _keep_activations(module: nn.Module, config: Train) -> None:
    """All of them, or by activation checkpointing (Chen et al. 2016) few, as transformers and diffusers name it."""
    if not config.gradient_checkpointing:
        return
    if hasattr(module, "gradient_checkpointing_enable"):
        enable: Callable[..., None] = module.gradient_checkpointing_enable  # type: ignore[assignment]
        enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif hasattr(module, "enable_gradient_checkpointing"):
        module.enable_gradient_checkpointing()  # type: ignore[operator]
    else:
        raise TrainingError(
            "gradient_checkpointing",
            found=f"{type(module).__name__}, which cannot",
            remedy="leave it out, or lower per_device_train_batch_size",
        )


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
