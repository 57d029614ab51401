"""`train.auto`: the choice keeps what an optimizer step learns from, and measuring leaves everything as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flywheel import probe
from flywheel.modalities.base import Model
from flywheel.modalities.text_causal import TextCausal
from flywheel.recipe import Recipe
from flywheel.recipe_train import Sft, Train
from tests.flywheel.tiny_room import Guess, TinyRoom

FEATURES: list[dict[str, Any]] = [{"input_ids": list(range(i, i + 16))} for i in range(6)]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "EACH", 0.01)


def config(**changes: Any) -> Train:
    return Sft(**{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "max_steps": 10, **changes})


def test_weights_buffers_and_random_numbers_stay() -> None:
    def count(module: Any, *_: Any) -> None:
        module.seen.add_(1)

    model = Model(Guess().eval())
    model.module.register_buffer("seen", torch.zeros(()))
    model.module.register_forward_pre_hook(count)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    state = torch.get_rng_state()
    probe.choose(TinyRoom(), model, config(), FEATURES)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
    assert not model.module.training
    assert all(p.grad is None for p in model.module.parameters())


def test_an_optimizer_step_learns_from_the_same_rows() -> None:
    found = probe.choose(TinyRoom(), Model(Guess()), config(), FEATURES)
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 12
    chosen = probe.apply(found, config(), Guess())
    assert chosen.per_device_train_batch_size == found["per_device_train_batch_size"]
    assert {*probe.KEYS, "attention", "table", "seconds"} == set(found)
    best = min(line["seconds"] for line in found["table"])
    mine = {key: found[key] for key in (*probe.KEYS, "attention")}
    assert [line["seconds"] for line in found["table"] if mine.items() <= line.items()] == [best]


def test_replayed_rows_come_by_whole_batches_so_their_size_stays() -> None:
    found = probe.choose(TinyRoom(), Model(Guess()), config(replay=0.5), FEATURES)
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (4, 3)


def test_a_short_training_is_not_compiled() -> None:
    found = probe.choose(TinyRoom(), Model(Guess()), config(), FEATURES)
    assert not any(line["torch_compile"] for line in found["table"])


def test_attention_is_measured_and_activations_are_computed_twice_only_where_memory_is_short() -> None:
    room, recipe = TextCausal(), _decoder()
    module, feature = room.outline(recipe, 64)
    before = module.config._attn_implementation
    plenty = probe.choose(room, Model(module), config(), [feature])
    assert {line["attention"] for line in plenty["table"]} == {before, "eager", "sdpa"}
    assert not plenty["gradient_checkpointing"]
    short = probe.choose(room, Model(module), config(), [feature], memory=1)
    assert short["gradient_checkpointing"]
    assert short["per_device_train_batch_size"] == 1
    assert module.config._attn_implementation == before
    assert not module.model.gradient_checkpointing


def _decoder() -> Recipe:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = {"modality": "text_causal", "tokenizer": {"vocab_size": 300}, "num_hidden_layers": 2, **sizes}
    data = {"sources": [{"type": "files", "path": "unused"}]}
    return Recipe.model_validate({"name": "tiny", "objective": {"metric": "loss"}, "data": data, "model": model})
