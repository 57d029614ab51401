"""Adapters start as no change, are all that learns, and are gone after the merge with what they learned kept."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from flywheel import adapters
from flywheel.errors import TrainingError
from flywheel.recipe_train import Peft


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes)).eval()


TOKENS = torch.arange(8)[None]


@torch.no_grad()
def test_attached_trained_merged(llama: LlamaForCausalLM) -> None:
    before, names = llama(TOKENS).logits, set(llama.state_dict())
    adapter = adapters.attach(llama, Peft(r=4, lora_alpha=8))
    torch.testing.assert_close(llama(TOKENS).logits, before)
    trained = {n: p for n, p in llama.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all("lora_" in name for name in trained)
    for parameter in trained.values():
        parameter.add_(0.1)
    changed = llama(TOKENS).logits
    merged = adapters.merge(adapter)
    assert merged is llama
    assert set(merged.state_dict()) == names
    assert all(p.requires_grad for p in merged.parameters())
    torch.testing.assert_close(merged(TOKENS).logits, changed)
    assert not torch.allclose(changed, before)


def test_layers_that_are_not_there_are_named(llama: LlamaForCausalLM) -> None:
    with pytest.raises(TrainingError, match="query_key_value"):
        adapters.attach(llama, Peft(target_modules=("query_key_value",)))


def train(module: torch.nn.Module, steps: int, state: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Steps of AdamW on what is trainable, from `state`; the state after them."""
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    if state is not None:
        module.load_state_dict(state, strict=False)
    for _ in range(steps):
        module(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}


KINDS = {
    "lora": Peft(r=4),
    "dora": Peft(r=4, use_dora=True),
    "qlora": Peft(r=4, load_in_4bit=True),
    "qdora": Peft(r=4, use_dora=True, load_in_4bit=True),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Peft:
    if KINDS[request.param].load_in_4bit:
        pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    return KINDS[request.param]


def test_every_kind_is_merged_as_it_was_trained(llama: LlamaForCausalLM, kind: Peft) -> None:
    names = set(llama.state_dict())
    adapter = adapters.attach(llama, kind)
    train(llama, 3)
    with torch.no_grad():
        before = llama(TOKENS).logits
        merged = adapters.merge(adapter)
        torch.testing.assert_close(merged(TOKENS).logits, before, atol=1e-5, rtol=1e-4)
    assert set(merged.state_dict()) == names
    assert all(p.dtype == torch.float32 for p in merged.parameters())


def test_every_kind_goes_on_to_the_same_bits(llama: LlamaForCausalLM, kind: Peft) -> None:
    """The trainable weights are all that a checkpoint needs."""
    other = copy.deepcopy(llama)
    for module in (llama, other):
        torch.manual_seed(1)
        adapters.attach(module, kind)
    whole = train(llama, 4)
    resumed = train(other, 2, {n: p.clone() for n, p in train(copy.deepcopy(other), 2).items()})
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_peft_reads_what_is_saved(llama: LlamaForCausalLM, kind: Peft, tmp_path: Path) -> None:
    from peft import PeftModel

    base = copy.deepcopy(llama)
    adapter = adapters.attach(llama, kind)
    train(llama, 3)
    for name in ("a", "b"):
        adapters.save(adapter, tmp_path / name)
    files = [sorted((p.name, p.read_bytes()) for p in (tmp_path / name).iterdir()) for name in ("a", "b")]
    assert files[0] == files[1]
    if not kind.load_in_4bit:
        with torch.no_grad():
            read = PeftModel.from_pretrained(base, tmp_path / "a").eval()
            torch.testing.assert_close(read(TOKENS).logits, llama(TOKENS).logits)


def test_training_goes_on_from_an_adapter(llama: LlamaForCausalLM, kind: Peft, tmp_path: Path) -> None:
    other = copy.deepcopy(llama)
    adapter = adapters.attach(llama, kind, "org/base")
    learned = train(llama, 3)
    adapters.save(adapter, tmp_path)
    again = Peft(path=str(tmp_path), load_in_4bit=kind.load_in_4bit)
    adapters.attach(other, again, "/models/another-name")
    found = {n: p for n, p in other.named_parameters() if p.requires_grad}
    assert all(torch.equal(found[name], learned[name]) for name in learned)


@pytest.fixture
def saved(llama: LlamaForCausalLM, tmp_path: Path) -> Path:
    adapters.save(adapters.attach(copy.deepcopy(llama), Peft(r=4), "org/base"), tmp_path)
    return tmp_path


def refusal(module: torch.nn.Module, config: Peft, base: str = "") -> str:
    with pytest.raises(TrainingError) as caught:
        adapters.attach(module, config, base)
    return str(caught.value)


def test_an_adapter_for_other_weights_is_refused(llama: LlamaForCausalLM, saved: Path) -> None:
    with torch.no_grad():
        llama.lm_head.weight[0, 0] += 1
    text = refusal(llama, Peft(path=str(saved)), "org/base")
    assert "made for another base" in text
    assert "org/base" in text


def test_an_adapter_of_others_is_known_by_name_and_shapes(llama: LlamaForCausalLM, saved: Path) -> None:
    file = saved / "adapter_model.safetensors"
    weights = load_file(file)
    (saved / "base.json").unlink()
    assert "made for another base" in refusal(copy.deepcopy(llama), Peft(path=str(saved)), "org/other")
    adapters.attach(copy.deepcopy(llama), Peft(path=str(saved)), "/models/base")
    name = min(weights)
    save_file({**weights, name: torch.zeros(4, 31)}, file)
    assert f"{name} (4, 31), the model has (4, 32)" in refusal(llama, Peft(path=str(saved)), "org/base")


def test_an_adapter_keeps_its_own_shape(llama: LlamaForCausalLM, saved: Path) -> None:
    assert "8 in the recipe, 4 in the adapter" in refusal(llama, Peft(path=str(saved), r=8))


def test_pickled_and_missing_adapters_are_refused(llama: LlamaForCausalLM, saved: Path) -> None:
    file = saved / "adapter_model.safetensors"
    torch.save(load_file(file), saved / "adapter_model.bin")
    file.unlink()
    assert "no adapter_model.safetensors" in refusal(llama, Peft(path=str(saved)))
