"""A reward model as a reward: what it scores is put into words as by the modality `text_reward`, which trains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from flywheel.errors import TrainingError
from flywheel.methods.dialogue import Asked, Said
from flywheel.modalities import text_reward
from flywheel.modalities.chat import Refused
from flywheel.modalities.single_pass_model import context
from flywheel.modalities.token_rows import shorten


def opened(directory: Path) -> Callable[..., list[float | None]]:
    """The reward of a checkpoint (safetensors, no code from it). Raises TrainingError where the path is none."""
    if not directory.is_dir():
        raise TrainingError(
            f"reward model {directory}", found="no such directory", expected="a checkpoint in hub layout with one label"
        )
    room = text_reward.TextReward()
    model = room.load(directory)
    model.module.requires_grad_(False)
    scorer = room.predictor(model)

    def rewards(prompts: Sequence[Said], completions: Sequence[str], **_: Any) -> list[float | None]:
        asked = [
            Asked(p, (c if isinstance(p, str) else [{"role": "assistant", "content": c}],))
            for p, c in zip(prompts, completions, strict=True)
        ]
        sides = text_reward.sides(model, asked)
        usable = [shorten(ids, context(model)) for ids in sides if not isinstance(ids, Refused)]
        with torch.inference_mode():
            scores = iter(scorer.scores(usable))
        return [None if isinstance(ids, Refused) else float(next(scores)) for ids in sides]

    return rewards
