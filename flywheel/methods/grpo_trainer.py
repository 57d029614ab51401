"""TRL's GRPOTrainer on rows that are tokenised already."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from trl.models.utils import prepare_fsdp
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from flywheel.methods.preference_trainers import Quiet


class GrpoTrainer(Quiet, GRPOTrainer):
    """`prompt_ids` has the token ids of every prompt. Where `kl_weight` is above 0 the model is held to what it was
    before the stage.

    The loss on held-out rows is minus their mean reward: that of the method itself is about zero by its making.
    """

    ref_model: Any

    def __init__(
        self, *, model: nn.Module, args: Any, prompt_ids: Mapping[str, list[int]], kl_weight: float, **inputs: Any
    ) -> None:
        before = copy.deepcopy(model).requires_grad_(False) if kl_weight else None
        super().__init__(model=model, args=args, **inputs)  # type: ignore[arg-type]
        self._prompt_ids, self.beta = prompt_ids, kl_weight
        if before is not None:
            disable_dropout_in_model(before)
            add_fused_lm_head(before, temperature=self.temperature)  # type: ignore[arg-type]
            prepared = prepare_fsdp(before, self.accelerator) if self.is_fsdp_enabled else None
            self.ref_model = prepared or self.accelerator.prepare_model(before, evaluation_mode=True)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._prompt_ids[prompt] for prompt in prompts], None, {}

    def prediction_step(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None, None]:
        super().prediction_step(*args, **kwargs)
        return -torch.tensor(self._metrics["eval"]["reward"][-1], device=self.args.device), None, None
