"""Kahneman-Tversky optimization (Ethayarajh et al. 2024): answers that are good or bad by themselves, by TRL's
KTOTrainer."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from flywheel.errors import TrainingError
from flywheel.methods import dialogue, trl_settings
from flywheel.methods.base import Made, Stage
from flywheel.recipe_train import Kto as Config


class Kto:
    """Rows with an answer and a `label` of true or false; `chosen` and `rejected` are one of each."""

    def make(self, stage: Stage) -> Made:
        from datasets import Dataset
        from trl.trainer.kto_config import KTOConfig

        from flywheel.methods.preference_trainers import KtoTrainer

        config, room = cast(Config, stage.config), dialogue.length(stage)
        batch = config.per_device_train_batch_size
        if batch < 2:
            raise TrainingError(
                "per_device_train_batch_size",
                found=str(batch),
                expected="at least 2: the answers of a batch are compared with those to its other questions",
                remedy="raise it, and lower gradient_accumulation_steps where memory is short",
            )
        kept = dialogue.fitting(stage, stage.rows, dialogue.judged, room)
        held = dialogue.fitting(stage, stage.heldout, dialogue.judged, room) if stage.heldout else None
        return Made(
            trainer=KtoTrainer,
            arguments=KTOConfig,
            inputs={
                "train_dataset": Dataset.from_list(_rows(kept, batch, room, stage.seed)),
                "eval_dataset": Dataset.from_list(_rows(held, batch, room, stage.seed)) if held else None,
                "processing_class": stage.model.processor,
                "kept": stage.work,
            },
            settings={
                **trl_settings.common(config),
                "beta": config.beta,
                "desirable_weight": config.desirable_weight,
                "undesirable_weight": config.undesirable_weight,
                "loss_type": "kto",
                "precompute_ref_log_probs": True,
                "train_sampling_strategy": "sequential",  # a batch keeps the answers that it is compared with
                "max_length": None,  # what is too long was left out
            },
            left_out=kept.left_out,
        )


def _rows(kept: dialogue.Kept, batch: int, room: int, seed: int) -> list[dict[str, Any]]:
    """One row for each answer, in a seeded order. Each is compared with the answer before it in its batch; where that
    does not fit behind its question, with its own."""
    rows: list[dict[str, Any]] = [
        {"prompt_ids": ids.prompt, "completion_ids": answer, "label": good}
        for asked, ids in zip(kept.asked, kept.tokens, strict=True)
        for answer, good in zip(ids.answers, asked.labels, strict=True)
    ]
    rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    for first in range(0, len(rows), batch):
        members = rows[first : first + batch]
        for i, row in enumerate(members):
            other = members[i - 1]["completion_ids"]
            row["KL_completion_ids"] = other if len(row["prompt_ids"]) + len(other) <= room else row["completion_ids"]
    return rows
