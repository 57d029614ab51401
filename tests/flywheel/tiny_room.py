"""A room of a hundred parameters' size, for tests of what is the same in every room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from flywheel.modalities.base import Model
from flywheel.recipe import Recipe
from flywheel.record import Record


class Guess(nn.Module):
    """Guesses the next byte from the present one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 16)
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 256, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.hidden(self.embedding(tokens)))
        logits: torch.Tensor = self.head(nn.functional.dropout(hidden, 0.1, self.training))
        return logits


class TinyRoom:
    def build(self, recipe: Recipe, rows: Sequence[Record]) -> Model:
        return Model(Guess())

    def outline(self, recipe: Recipe, max_length: int) -> tuple[nn.Module, Mapping[str, Any]]:
        return Guess(), {"input_ids": [0] * max_length}

    def encode(
        self, model: Model, rows: Sequence[Record], max_length: int, whole: bool = False
    ) -> list[dict[str, Any]]:
        data = "".join(r.text or f"{r.prompt}{r.completion}" for r in rows).encode()
        return [{"input_ids": list(data[i : i + max_length])} for i in range(0, len(data) - max_length + 1, max_length)]

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([f["input_ids"] for f in features])}

    def losses(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tokens = batch["input_ids"]
        logits = module(tokens[:, :-1]).float()
        return {"": nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())}

    def save(self, model: Model, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_model(model.module, str(directory / "model.safetensors"))

    def load(self, directory: Path) -> Model:
        module = Guess()
        load_model(module, directory / "model.safetensors")
        return Model(module)


class BrokenRoom(TinyRoom):
    """Its loss is no number."""

    def losses(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"": super().losses(module, batch)[""] * float("nan")}


class SpikingRoom(TinyRoom):
    """One batch, the 33rd, has a loss out of all proportion."""

    def __init__(self) -> None:
        self.calls = 0

    def losses(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"": super().losses(module, batch)[""] * (100 if self.calls == 33 else 1)}
