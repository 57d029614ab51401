"""Optimizers by the names of the recipe: AdamW for everything, or Muon for hidden matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from flywheel.recipe_train import Train


def build(module: nn.Module, config: Train) -> torch.optim.Optimizer:
    """The optimizer of a stage over all trainable weights; weight decay falls on hidden matrices and kernels alone."""
    matrices, kernels, rest = _sorted(module)
    betas = (config.adam_beta1, config.adam_beta2)

    def adamw(decayed: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": list(decayed), "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        filled = [group for group in groups if group["params"]]
        return torch.optim.AdamW(filled, lr=config.learning_rate, betas=betas, fused=True)

    if config.optim == "adamw" or not matrices:
        return adamw([*matrices, *kernels])
    # At AdamW's update size one learning rate serves both (Liu et al. 2025, "Muon is scalable for LLM training").
    muon = torch.optim.Muon(
        matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return Together(muon, adamw(kernels)) if kernels or rest else muon


def _sorted(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters: hidden matrices, other weights of more than one axis, and the rest with the embeddings."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    if isinstance(module, PreTrainedModel) and (head := module.get_output_embeddings()) is not None:  # type: ignore[no-untyped-call]
        embeddings.add(id(head.weight))
    matrices: list[nn.Parameter] = []
    kernels: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim > 1 and id(parameter) not in embeddings
            (rest if not hidden else matrices if parameter.ndim == 2 else kernels).append(parameter)
    return matrices, kernels, rest


class Together(torch.optim.Optimizer):
    """Several optimizers as one, each over its own parameters, for a loop that knows only one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        # A scheduler writes learning rates into `param_groups`: they must be the very groups that the parts read.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()
