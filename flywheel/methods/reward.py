"""A reward model on preferences: the losses of the room `text_reward`, with the mean of a pair's rewards held."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from flywheel.errors import TrainingError
from flywheel.methods.base import Made, Stage
from flywheel.methods.rows import Rows
from flywheel.recipe_train import Reward as Config


class Reward:
    """Rows with `chosen` and `rejected`, for the modality `text_reward`."""

    def make(self, stage: Stage) -> Made:
        from flywheel.modalities.text_reward import TextReward

        if not isinstance(stage.room, TextReward):
            raise TrainingError(
                "method reward",
                found=f"the modality of {type(stage.room).__name__}",
                expected="text_reward",
                remedy="write model.modality: text_reward, or another method",
            )
        center = cast(Config, stage.config).center_rewards_coefficient
        return Rows().make(replace(stage, room=TextReward(center)))
