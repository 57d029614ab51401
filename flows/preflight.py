"""What the training of a recipe takes, said before anything runs; what cannot fit is refused here, within seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from flywheel.plan import PlannedStep
from flywheel.recipe import Recipe, stage_of
from infra import devices
from infra.settings import Settings

STAGES = ("train", "finetune")
_told = set[str]()
"""Stages that this process has looked at: a command does before it starts a server, and its flow after that."""


def preflight(recipe: Recipe, planned: Sequence[PlannedStep], settings: Settings) -> None:
    """Say parameters, memory and time of each stage that is to be trained on this machine.

    Raises TrainingError, with the change that would make it fit, and SettingsError where a GPU is asked for in vain.
    The workers of a pool look for themselves.
    """
    missing = {
        s.fingerprint: s.name for s in planned if s.name in STAGES and not s.cached and s.fingerprint not in _told
    }
    if not missing or recipe.resources.work_pool is not None:
        return
    from flywheel import adapters, estimate

    if recipe.peft is not None and recipe.peft.path is not None:
        adapters.directory(recipe.peft.path)
    wanted = recipe.resources
    gpus = devices.resolve(settings, wanted.accelerator, wanted.accelerators)
    for mark, stage in missing.items():
        if gpus:  # their speed is measured by the process that trains: this one keeps away from them
            processes = wanted.accelerators * wanted.num_nodes
            on = estimate.Machine(min(gpu.memory_total for gpu in gpus), "cuda", processes)
        else:
            on = estimate.machine(recipe, stage, settings.store / ".machines" / os.uname().nodename)
        sys.stderr.write(f"{stage}: {estimate.check(estimate.wanted(recipe, stage), on)}\n")
        _told.add(mark)
        config = stage_of(recipe, stage)
        if config.num_train_epochs is None and config.warmup_steps >= config.max_steps:
            sys.stderr.write(
                f"{stage}: warmup_steps {config.warmup_steps} of max_steps {config.max_steps}: "
                "the learning rate never reaches its peak\n"
            )
