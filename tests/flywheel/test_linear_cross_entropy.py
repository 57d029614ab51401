"""The loss without all logits is the loss, and so are its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from flywheel import linear_cross_entropy as module
from flywheel.linear_cross_entropy import has_plain_head, linear_cross_entropy

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGITS", 8 * 90)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    targets = torch.randint(90, (50,))
    targets[::7] = -100
    return torch.randn(50, 24, requires_grad=True), torch.randn(90, 24, requires_grad=True), targets


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy((hidden @ weight.T).float(), targets)


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_loss_and_gradients_are_those_of_the_whole(backend: str | None) -> None:
    hidden, weight, targets = inputs()
    loss: Any = torch.compile(linear_cross_entropy, backend=backend) if backend else linear_cross_entropy
    found, expected = loss(hidden, weight, targets), plain(hidden, weight, targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(3 * found, (hidden, weight)), torch.autograd.grad(3 * expected, (hidden, weight))
    )


def test_autocast_computes_in_its_type_and_gives_gradients_in_the_types_of_the_inputs() -> None:
    hidden, weight, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = linear_cross_entropy(hidden, weight, targets), plain(hidden, weight, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    for mine, theirs in zip(*(torch.autograd.grad(x, (hidden, weight)) for x in (found, expected)), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.01 * theirs.norm()


def test_equal_inputs_give_equal_bits() -> None:
    hidden, weight, targets = inputs()
    one, other = (torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), weight)[0] for _ in range(2))
    assert torch.equal(one, other)


def test_frozen_weights_get_no_gradient() -> None:
    hidden, weight, targets = inputs()
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, targets = inputs()
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), plain(hidden, weight, targets))


def test_no_target_at_all_is_nan_as_in_torch() -> None:
    hidden, weight, targets = inputs()
    assert linear_cross_entropy(hidden, weight, torch.full_like(targets, -100)).isnan()


@pytest.mark.parametrize(
    ("name", "expected"), [("llama", True), ("gemma2", False), ("granite", False), ("cohere", False)]
)
def test_heads_that_do_more_are_known(name: str, expected: bool) -> None:
    extra = {"logits_scaling": 4.0} if name == "granite" else {}
    config = AutoConfig.for_model(name, vocab_size=64, **TINY, **extra, pad_token_id=0)
    assert has_plain_head(AutoModelForCausalLM.from_config(config)) is (name == "llama")
