"""Attention by blocks is the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from flywheel import block_attention

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def model(name: str) -> Any:
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    extra = {"num_local_experts": 4, "sliding_window": 8} if name == "gpt_oss" else {}
    config = AutoConfig.for_model(name, vocab_size=64, num_key_value_heads=2, head_dim=8, **TINY, **special, **extra)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()


def packed(length: int = 40) -> dict[str, torch.Tensor]:
    """A row of two documents, and one of a single document."""
    places = torch.arange(length)
    return {
        "input_ids": torch.arange(2 * length).remainder(64).view(2, length),
        "position_ids": torch.stack([torch.where(places < 13, places, places - 13), places]),
    }


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "gpt2"])
def test_logits_and_gradients_are_those_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "BLOCK", 16)
    found = []
    for by_blocks in (False, True):
        net = model(name).eval()
        if by_blocks:
            block_attention.use(net)
            assert net.config._attn_implementation == block_attention.NAME
        logits = net(**packed(), use_cache=False).logits
        logits.square().sum().backward()
        found.append((logits, [p.grad for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_the_documents_of_a_row_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "BLOCK", 16)
    net = model("llama").eval()
    block_attention.use(net)
    row = packed()
    changed = {**row, "input_ids": row["input_ids"].clone()}
    changed["input_ids"][0, :13] = 5
    one, other = (net(**batch, use_cache=False).logits[0, 13:] for batch in (row, changed))
    torch.testing.assert_close(one, other)


def test_rows_of_any_length_are_cut_into_few_blocks() -> None:
    net = model("llama").eval()
    expected = net(**packed(601), use_cache=False).logits
    block_attention.use(net)
    torch.testing.assert_close(net(**packed(601), use_cache=False).logits, expected, rtol=1e-3, atol=1e-4)


def test_it_generates_with_a_cache() -> None:
    net = model("llama").eval()
    prompt = torch.arange(20)[None]
    expected = net.generate(prompt, max_new_tokens=5, do_sample=False)
    block_attention.use(net)
    assert net.generate(prompt, max_new_tokens=5, do_sample=False).tolist() == expected.tolist()
