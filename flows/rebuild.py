"""The steps from sources to weights, once more and with nothing from a cache: what `flywheel reproduce` compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import Task, flow
from prefect.cache_policies import NO_CACHE

from flows.reproduce import at
from flywheel.plan import plan
from flywheel.recipe import Recipe
from infra import registry, tracking
from infra.settings import Settings
from tasks.finetune import finetune
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.shell import Job, Reference
from tasks.train import train
from tasks.validate import validate


@flow(name="reproduce", persist_result=False)
def rebuild(recipe: Recipe, home: Path, steps: Sequence[str]) -> dict[str, str]:
    """Run `steps` in a store below `home`; step → fingerprint of what they made."""
    settings = at(Settings.load(), home)
    planned = {s.name: s for s in plan(recipe, settings.store, registry.Registered(settings), last=steps[-1])}
    with tracking.lifecycle_run(settings, recipe.name, "reproduce", tags={}, params={}) as run:

        def turn(task: Task[..., Reference], **inputs: Any) -> Reference:
            apart = task.with_options(cache_policy=NO_CACHE, persist_result=False)
            reference: Reference = apart(Job(recipe, planned[task.name], settings, run.id), **inputs)
            return reference

        rows = turn(validate, rows=turn(prepare, rows=turn(ingest)))
        base = turn(train, rows=rows)
        if finetune.name in steps:
            turn(finetune, start=base, rows=rows)
    return {name: planned[name].fingerprint for name in steps}
