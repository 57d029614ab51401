"""A tiny language model beside its bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from flywheel.graphs import write_graphs
from flywheel.modalities.base import Model
from flywheel.modalities.text_causal import TextCausal
from flywheel.recipe import Recipe
from flywheel.record import Record
from flywheel.runtimes.base import Predictor
from flywheel.runtimes.decoder import Decoder

TEXT = "Größe, naïveté, ☃ and 🎈: the quick brown fox jumps over the lazy dog.\n" * 4


@dataclass(frozen=True)
class Tiny:
    room: TextCausal
    model: Model
    torch: Predictor
    bundle: Path

    @property
    def decoder(self) -> Decoder:
        return Decoder(self.bundle, json.loads((self.bundle / "manifest.json").read_text()), "fp32")


def build(bundle: Path) -> Tiny:
    """Build the model and write its bundle."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 192}
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": [{"type": "files", "path": "."}]},
            "model": {
                "modality": "text_causal",
                "tokenizer": {"vocab_size": 300},
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                **sizes,
            },
        }
    )
    room = TextCausal()
    model = room.build(recipe, [Record(id="0", text=TEXT)])
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)  # fresh weights repeat one token; these wander
    exported = room.export(model, bundle)
    write_graphs(exported.graphs["model"], "model", bundle, ["fp32"])
    manifest = {**exported.manifest, "default": "fp32", "precisions": ["fp32"]}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return Tiny(room, model, room.predictor(model), bundle)
