"""The methods of training by name. Each is imported only when a recipe asks for it."""

from __future__ import annotations

from importlib import import_module

from flywheel.methods.base import Method
from flywheel.recipe_train import Train

METHODS = {
    "sft": "flywheel.methods.rows:Rows",
    "pretrain": "flywheel.methods.rows:Rows",
    "reward": "flywheel.methods.reward:Reward",
    "dpo": "flywheel.methods.dpo:Dpo",
    "kto": "flywheel.methods.kto:Kto",
    "orpo": "flywheel.methods.orpo:Orpo",
    "grpo": "flywheel.methods.grpo:Grpo",
    "distill": "flywheel.methods.distill:Distill",
}
"""Method → module and class."""


def method(config: Train) -> Method:
    """The method of a stage."""
    module, _, name = METHODS[named(config)].partition(":")
    instance: Method = getattr(import_module(module), name)()
    return instance


def modules(config: Train) -> tuple[str, ...]:
    """The source of a stage's method, for its fingerprint."""
    return (METHODS[named(config)].partition(":")[0],)


def named(config: Train) -> str:
    """The name of a stage's method; rows as they are where none is given."""
    return getattr(config, "method", None) or "sft"
