"""Odds-ratio preference optimization (Hong et al. 2024): likelihood and preference in one, by TRL's ORPOTrainer."""

from __future__ import annotations

from typing import cast

from flywheel.methods import dialogue, trl_settings
from flywheel.methods.base import Made, Stage
from flywheel.modalities.token_rows import IGNORED
from flywheel.recipe_train import Orpo as Config


class Orpo:
    """Rows with `chosen` and `rejected`."""

    def make(self, stage: Stage) -> Made:
        from flywheel.methods.preference_trainers import OrpoConfig, OrpoTrainer, Tokenised

        config, room = cast(Config, stage.config), dialogue.length(stage)
        kept = dialogue.fitting(stage, stage.rows, dialogue.preference, room)
        held = dialogue.fitting(stage, stage.heldout, dialogue.preference, room) if stage.heldout else None
        return Made(
            trainer=OrpoTrainer,
            arguments=OrpoConfig,
            inputs={
                "train_dataset": Tokenised([_row(ids) for ids in kept.tokens]),
                "eval_dataset": Tokenised([_row(ids) for ids in held.tokens]) if held else None,
                "processing_class": stage.model.processor,
            },
            settings={**trl_settings.common(config), "beta": config.beta, "max_length": room},
            left_out=kept.left_out,
        )


def _row(ids: dialogue.Tokens) -> dict[str, list[int]]:
    """The columns of TRL's collator. `labels` are the answer alone."""
    row = {}
    for side, answer in zip(("chosen", "rejected"), ids.answers, strict=True):
        row[f"{side}_input_ids"] = ids.prompt + answer
        row[f"{side}_attention_mask"] = [1] * (len(ids.prompt) + len(answer))
        row[f"{side}_labels"] = [IGNORED] * len(ids.prompt) + answer
    return row
