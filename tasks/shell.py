"""What every task does around its core: take the lease, stage, log, commit, and hand on a small reference."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel import artifact
from flywheel.errors import ArtifactError, FlywheelError, disk_full
from flywheel.plan import PlannedStep, differences, own_ingredients
from flywheel.progress import Progress, silent
from flywheel.recipe import Recipe
from flywheel.steps import wheel
from infra import tracking
from infra.settings import Settings
from tasks import show

_PLANNED = ("parent:", "registry:")
"""Ingredients that the plan found; the others are looked at again."""
Summary = dict[str, Any]
Reference = dict[str, Any]
"""`{"step", "fingerprint", "seconds", "summary"}`: what one task hands to the next."""


@dataclass(frozen=True)
class Job:
    """One step of one lifecycle."""

    recipe: Recipe
    step: PlannedStep
    settings: Settings
    run_id: str
    """The MLflow run of the lifecycle."""
    watch: Progress = silent
    """Is told the progress too, and may end the step by an error."""

    def path(self, reference: Reference) -> Path:
        """The directory of an earlier step's artifact."""
        return artifact.location(self.settings.store, reference["step"], reference["fingerprint"])


@dataclass(frozen=True)
class Scope:
    """What a step's work gets: where to write, and where to tell."""

    out: Path
    """Empty at the start; what is here at the end is the artifact."""
    work: Path
    """Checkpoints and scratch, kept when the attempt dies."""
    run: tracking.Run
    reporter: show.Reporter
    watch: Progress = silent

    def progress(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        self.reporter.progress(done, total, figures)
        self.watch(done, total, figures)


def perform(job: Job, work: Callable[[Scope], Summary]) -> Reference:
    """Do the work of a step once: under its lease, in a staging directory, committed whole or not at all.

    Where another run finished the same step while this one waited for the lease, its artifact is taken.
    """
    started, step, store = time.monotonic(), job.step, job.settings.store
    target = artifact.location(store, step.name, step.fingerprint)
    with artifact.locked(store, step.name, step.fingerprint) as building, _space(store):
        done = None if step.redo else artifact.intact(target)
        if done is None:
            _refuse_changed(job, "since the run was planned")
            with tracking.step_run(job.settings, job.run_id, step.name) as run, show.Reporter(step.name) as reporter:
                summary = work(Scope(building.out, building.work, run, reporter, job.watch))
            _refuse_changed(job, "while the step ran")
            done = artifact.commit(
                building, target=target, recipe=job.recipe.name, ingredients=step.ingredients, summary=summary
            )
    return {
        "step": step.name,
        "fingerprint": step.fingerprint,
        "seconds": time.monotonic() - started,
        "summary": dict(done.summary),
    }


@contextmanager
def _space(store: Path) -> Iterator[None]:
    """Say what to do where the disk is full."""
    try:
        yield
    except Exception as error:
        if not disk_full(error) or isinstance(error, FlywheelError):
            raise
        usage = shutil.disk_usage(store)
        raise ArtifactError(
            f"store {store}",
            found=f"{error}; {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB are free now",
            expected="space for what the step makes",
            remedy="free some space; the same command goes on with what is left to do",
        ) from error


def _refuse_changed(job: Job, when: str) -> None:
    """An artifact stands for the ingredients that were planned: what was made from others must not take its name."""
    step = next(s for s in wheel(job.recipe) if s.name == job.step.name)
    now = own_ingredients(job.recipe, step, job.settings.store, job.settings.tracking_uri)
    planned = {name: value for name, value in job.step.ingredients.items() if not name.startswith(_PLANNED)}
    if now != planned:
        raise ArtifactError(
            f"step {step.name}",
            found=f"{differences(planned, now)} {when}",
            expected="sources, code and libraries that stay as they are during a run",
            remedy="run the recipe again",
        )
