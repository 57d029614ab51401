"""The loss of a student beside its teacher, computed a few tokens at a time: no whole table of logits stands in
memory, which would have `tokens x vocabulary` numbers for each of the two."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from flywheel.methods.rows import computes_bf16
from flywheel.modalities.token_rows import IGNORED
from flywheel.recipe_train import Distill as Config

CHUNK = 2**22
"""Logits of one model that stand in memory at a time: 16 MiB of float32."""


class Distilling(nn.Module):
    """A student that gives its loss: `alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy`, in nats per
    token that has a label. The teacher is no part of the module: nothing of it is trained, shared out or saved."""

    def __init__(self, student: nn.Module, teacher: nn.Module, config: Config) -> None:
        super().__init__()
        self.module = student
        self._no_split_modules = getattr(student, "_no_split_modules", None)
        self._teacher = (teacher.eval().requires_grad_(False),)
        self._alpha, self._temperature = config.alpha, config.temperature
        self._bf16 = config.bf16 and computes_bf16("cuda" if torch.cuda.is_available() else "cpu")

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        """The loss of packed rows: `input_ids`, `labels` and `position_ids`, each (batch, length)."""
        (teacher,) = self._teacher
        ids = batch["input_ids"]
        teacher.to(ids.device)
        labels = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
        learned = labels != IGNORED
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._bf16):
            with torch.no_grad():
                taught = _hidden(teacher, batch)[learned]
            return self._loss(_hidden(self.module, batch)[learned], taught, labels[learned])

    def _loss(self, hidden: torch.Tensor, taught: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the tokens (count, width); each chunk's logits are computed again in the backward pass."""
        vocabulary = self.module.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
        size = max(1, CHUNK // vocabulary)
        parts = zip(*(torch.split(part, size) for part in (hidden, taught, labels)), strict=True)
        sums = [checkpoint(self._part, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        return torch.stack(sums).sum() / max(1, len(labels)) if sums else hidden.sum()

    def _part(self, hidden: torch.Tensor, taught: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum over some tokens."""
        (teacher,) = self._teacher
        mine = _logits(self.module, hidden)
        with torch.no_grad():
            its = _logits(teacher, taught)
        both = min(mine.shape[-1], its.shape[-1])  # heads are padded to different sizes
        scale = self._temperature
        aim = F.log_softmax(its[:, :both] / scale, dim=-1)
        gap = F.kl_div(F.log_softmax(mine[:, :both] / scale, dim=-1), aim, reduction="sum", log_target=True)
        own = F.cross_entropy(mine, labels, reduction="sum")
        return self._alpha * scale**2 * gap + (1 - self._alpha) * own


def _hidden(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The last hidden states, (batch, length, width)."""
    # With a cache, transformers would let the sequences of a row see each other.
    found: torch.Tensor = model.base_model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
    ).last_hidden_state
    return found


def _logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits in float32 as the model itself computes them: some scale and bound them."""
    config = model.config.get_text_config()
    logits = model.get_output_embeddings()(hidden).float()
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (bound := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = bound * torch.tanh(logits / bound)
    return logits  # type: ignore[no-any-return]
