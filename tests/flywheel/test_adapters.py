"""Adapters start as no change, are all that learns, and are gone after the merge with what they learned kept."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flywheel import adapters
from flywheel.errors import TrainingError
from flywheel.recipe import Peft


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes)).eval()


TOKENS = torch.arange(8)[None]


@torch.no_grad()
def test_attached_trained_merged(llama: LlamaForCausalLM) -> None:
    before, names = llama(TOKENS).logits, set(llama.state_dict())
    tuner = adapters.attach(llama, Peft(r=4, lora_alpha=8))
    torch.testing.assert_close(llama(TOKENS).logits, before)
    trained = {n: p for n, p in llama.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all("lora_" in name for name in trained)
    for parameter in trained.values():
        parameter.add_(0.1)
    changed = llama(TOKENS).logits
    merged = adapters.merge(tuner)
    assert merged is llama
    assert set(merged.state_dict()) == names
    assert all(p.requires_grad for p in merged.parameters())
    torch.testing.assert_close(merged(TOKENS).logits, changed)
    assert not torch.allclose(changed, before)


def test_layers_that_are_not_there_are_named(llama: LlamaForCausalLM) -> None:
    with pytest.raises(TrainingError, match="query_key_value"):
        adapters.attach(llama, Peft(target_modules=("query_key_value",)))
