"""One training stage: devices are leased, processes launched and followed, and the curve is logged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from flywheel import energy, launch
from flywheel.recipe import stage_of
from flywheel.recipe_train import Train
from tasks import machines
from tasks.shell import Job, Scope, Summary

LIVE_SECONDS = 5.0
"""Between two batches of live figures to MLflow."""


def train_stage(job: Job, step: Scope, stage: Literal["train", "finetune"], rows: Path, start: Path | None) -> Summary:
    """Train a stage on the devices that the recipe asks for; waits while other runs hold them."""
    live = _Live(step)

    def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
        live(done, figures)
        step.progress(done, total, figures)

    work = launch.Job(job.recipe, stage, rows, start, step.out, step.work, job.settings.store / ".machines")
    with machines.gathered(job.settings, work) as found, energy.Meter() as meter:
        summary = launch.launch(work, found.devices, found.watched(progress))
    summary = {**summary, "kilowatt_hours": meter.kilowatt_hours}
    live.flush()
    for line in _told(summary, stage_of(job.recipe, stage)):
        step.reporter.console.print(f"{stage}: {line}", soft_wrap=True)
    _log_curve(step)
    return summary


def _told(summary: Summary, config: Train) -> Iterator[str]:
    """What people should know of a training that ended well."""
    if left := summary["left_out"]:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left.items())
        yield f"{sum(left.values())} rows were left out ({reasons}); the artifact's left.jsonl lists them"
    if choice := summary["choice"]:
        yield f"auto chose {', '.join(f'{key} {choice[key]}' for key in choice if key not in ('table', 'seconds'))}"
    if skipped := summary["skipped"]:
        yield f"went back and skipped {len(skipped)} steps: {', '.join(str(skip['step']) for skip in skipped)}"
    if config.num_train_epochs is None and summary["steps"] < config.max_steps:
        yield f"stopped early, after {summary['steps']} of {config.max_steps} steps"


class _Live:
    """Passes figures on to MLflow while the model trains, some at a time."""

    def __init__(self, step: Scope) -> None:
        self._step, self._waiting, self._told = step, list[Mapping[str, float]](), time.monotonic()

    def __call__(self, done: int, figures: Mapping[str, Any]) -> None:
        self._waiting.append({"step": done, **figures})
        if time.monotonic() - self._told > LIVE_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._step.run.log_history(self._waiting)
        self._waiting, self._told = [], time.monotonic()


def _log_curve(step: Scope) -> None:
    """The whole curve, as points and as a picture."""
    from flywheel import pictures

    history = json.loads((step.out / "history.json").read_text())
    step.run.log_history(history)
    step.run.log_picture(pictures.loss_curve(history), "loss.png")
