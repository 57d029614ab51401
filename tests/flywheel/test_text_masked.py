"""The room of masked language models, from scratch and on checkpoints laid out as on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from flywheel.errors import RecipeError, TrainingError
from flywheel.metrics.masked import Neighbours
from flywheel.modalities.base import Model
from flywheel.modalities.text_masked import TextMasked
from flywheel.modalities.token_rows import IGNORED
from flywheel.recipe import Recipe
from flywheel.record import Record

ROWS = [Record(str(i), text=f"Row {i}: " + "the quick brown fox jumps. " * (1 + 3 * i)) for i in range(5)]
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def recipe(**model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "masked_accuracy"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {
                "modality": "text_masked",
                "tokenizer": {"vocab_size": 300},
                **SIZES,
                "max_position_embeddings": 64,
                **model,
            },
        }
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return TextMasked().build(recipe(), ROWS)


def checkpoint(path: Path, tokenizer: Any, kind: str) -> Path:
    """A tiny checkpoint as transformers saves it."""
    sizes: dict[str, Any] = {**SIZES, "vocab_size": 300, "max_position_embeddings": 66}
    torch.manual_seed(0)
    if kind == "bert":
        BertForMaskedLM(BertConfig(**sizes, pad_token_id=0)).save_pretrained(path)
    else:
        RobertaForMaskedLM(RobertaConfig(**sizes, pad_token_id=0)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_checkpoint_of_the_hub_is_packed_only_where_its_documents_stay_apart(
    model: Model, tmp_path: Path, kind: str
) -> None:
    room = TextMasked()
    opened = room.build(recipe(path=str(checkpoint(tmp_path, model.processor, kind))), [])
    features = room.encode(opened, ROWS, 32)
    batch = room.collate([features[i] for i in range(len(features))])  # type: ignore[arg-type]
    assert "position_ids" in batch
    assert batch["position_ids"].min() == (1 if kind == "roberta" else 0)
    assert torch.isfinite(room.losses(opened.module, batch)[""])


def test_a_model_that_mixes_documents_gives_each_a_row(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = type(model.module).forward

    def mixing(self: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        inputs.pop("attention_mask", None)
        return forward(self, input_ids, **inputs)

    monkeypatch.setattr(type(model.module), "forward", mixing)
    features = TextMasked().encode(model, ROWS, 32)
    assert set(features[0]) == {"input_ids", "labels", "attention_mask", "mask_token_id"}
    ends = [int((f["input_ids"] == model.processor.sep_token_id).sum()) for f in features]  # type: ignore[attr-defined]
    assert set(ends) == {1}


def test_every_token_may_be_learned_and_special_ones_never(model: Model) -> None:
    features = TextMasked().encode(model, ROWS, 32)
    labels = torch.cat([features[i]["labels"] for i in range(len(features))])  # type: ignore[arg-type]
    text = "".join(model.processor.decode([t]) for t in labels[labels != IGNORED].tolist())
    assert sorted(text) == sorted("".join(row.text or "" for row in ROWS))
    assert not set(labels.tolist()) & set(model.processor.all_special_ids)


def test_masks_are_drawn_anew_from_the_generator_and_fixed_when_measured(model: Model) -> None:
    room = TextMasked()
    features = room.encode(model, ROWS, 32)
    batch = room.collate([features[i] for i in range(len(features))])  # type: ignore[arg-type]

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return room.losses(model.module, batch)[""].item()

    dropout = [m for m in model.module.modules() if isinstance(m, torch.nn.Dropout)]
    for layer in dropout:
        layer.p = 0.0
    model.module.train()
    assert loss(0) == loss(0) != loss(1)
    model.module.eval()
    assert loss(0) == loss(1)


def test_rows_longer_than_the_positions_are_refused(model: Model) -> None:
    with pytest.raises(TrainingError, match="max_length"):
        TextMasked().encode(model, ROWS, 128)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path, model: Model) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=model.processor.backend_tokenizer, pad_token="[PAD]")  # type: ignore[no-untyped-call]
    with pytest.raises(RecipeError, match="mask_token"):
        TextMasked().load(checkpoint(tmp_path, bare, "bert"))


def test_neighbours_know_what_stands_between_them() -> None:
    known = Neighbours([np.array([1, 2, 3, 1, 2, 3, 1, 4])], 8)
    bits, right = known.score([np.array([1, 2, 3])], [np.array([1])])
    assert right.all()
    assert bits[0] < 1.5
    shares = [2.0 ** -known.score([np.array([1, t, 3])], [np.array([1])])[0][0] for t in range(8)]
    assert sum(shares) == pytest.approx(1)
