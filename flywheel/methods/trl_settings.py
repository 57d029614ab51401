"""What every method of TRL is told: its own defaults are other ones than the recipe's."""

from __future__ import annotations

from typing import Any

from flywheel.recipe_train import Train


def common(config: Train) -> dict[str, Any]:
    """Settings that TRL's arguments would otherwise turn on by themselves."""
    import torch

    from flywheel.methods.rows import computes_bf16

    return {
        "bf16": config.bf16 and computes_bf16("cuda" if torch.cuda.is_available() else "cpu"),
        "activation_checkpointing": config.gradient_checkpointing,
    }
