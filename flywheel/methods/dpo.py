"""Direct preference optimization (Rafailov et al. 2023): the model itself as its reward model, by TRL's DPOTrainer."""

from __future__ import annotations

from typing import cast

from flywheel.methods import dialogue, trl_settings
from flywheel.methods.base import Made, Stage
from flywheel.recipe_train import Dpo as Config


class Dpo:
    """Rows with `chosen` and `rejected`."""

    def make(self, stage: Stage) -> Made:
        from datasets import Dataset
        from trl.trainer.dpo_config import DPOConfig

        from flywheel.methods.preference_trainers import DpoTrainer

        config, room = cast(Config, stage.config), dialogue.length(stage)
        kept = dialogue.fitting(stage, stage.rows, dialogue.preference, room)
        held = dialogue.fitting(stage, stage.heldout, dialogue.preference, room) if stage.heldout else None
        return Made(
            trainer=DpoTrainer,
            arguments=DPOConfig,
            inputs={
                "train_dataset": Dataset.from_list(_rows(kept)),
                "eval_dataset": Dataset.from_list(_rows(held)) if held else None,
                "processing_class": stage.model.processor,
                "kept": stage.work,
            },
            settings={
                **trl_settings.common(config),
                "beta": config.beta,
                "loss_type": config.loss_type,
                "label_smoothing": config.label_smoothing,
                "precompute_ref_log_probs": True,
                "max_length": None,  # what is too long was left out
            },
            left_out=kept.left_out,
        )


def _rows(kept: dialogue.Kept) -> list[dict[str, list[int]]]:
    return [
        {"prompt_ids": ids.prompt, "chosen_ids": ids.answers[0], "rejected_ids": ids.answers[1]} for ids in kept.tokens
    ]
