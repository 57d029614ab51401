"""Cross-entropy of a linear layer's outputs without ever holding all of them: hidden states and weights to a loss.

The logits of a language model are its largest tensor by far. Here they are made for a few rows at a time, and their
gradient at once, as in Liger Kernel (Hsu et al. 2024, https://arxiv.org/abs/2410.10989): a backward pass that finds
nothing left to do but to scale. The loss and its gradients do not depend on the number of rows at a time, but for
rounding. On CUDA Liger's own kernel is used where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, wraps
from importlib.util import find_spec
from math import ceil
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

LOGITS, CHUNKS = 1 << 22, 16
"""How many logits are worth holding at a time, and most chunks of rows: compiled, each is there by itself."""
_Saved = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor]
_alone: ContextVar[bool] = ContextVar("alone", default=False)
P = ParamSpec("P")
R = TypeVar("R")


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, ignore_index: int = -100
) -> torch.Tensor:
    """The mean of `cross_entropy(hidden @ weight.T, targets)` in nats, a float32 scalar; as there, nan without targets.

    `hidden` (rows, features), `weight` (classes, features), `targets` (rows,) of class numbers; rows whose target is
    `ignore_index` do not count. Products are made in autocast's type where that is on; everything else in float32.
    """
    if not torch.compiler.is_compiling() and _alone.get():
        return _compiled()(hidden, weight, targets, ignore_index)
    return _loss(hidden, weight, targets, ignore_index)


def compiled_alone(function: Callable[P, R]) -> Callable[P, R]:
    """A function that is not compiled, in which this loss is."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        token = _alone.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            _alone.reset(token)

    return called


@cache
def _compiled() -> Callable[..., torch.Tensor]:
    return torch.compile(_loss, dynamic=False)


def _loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, ignore_index: int) -> torch.Tensor:
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    with torch.autocast(kind, enabled=False):
        if kind == "cuda" and _has_liger():
            return _liger(hidden.to(dtype), weight.to(dtype), targets, ignore_index)
        if torch.is_grad_enabled():
            loss: torch.Tensor = _Chunked.apply(hidden, weight, targets, ignore_index, dtype)  # type: ignore[no-untyped-call]
            return loss
        return _forward(hidden, weight, targets, ignore_index, dtype, (False, False))[0]


def has_plain_head(module: nn.Module) -> bool:
    """Whether the logits of a causal language model are `lm_head(last_hidden_state)` and nothing else.

    Not so where it caps or scales them (Gemma, Cohere, Granite), where an adapter is on the head, or where that has a
    bias or another name.
    """
    head: Any = getattr(module, "lm_head", None)
    base: Any = getattr(module, "base_model", module)
    if base is module or type(head) not in (nn.Linear,) or head.bias is not None:
        return False
    config = base.config.get_text_config()
    caps = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "unpadded_vocab_size")
    scales = ("logits_scaling", "logit_scale")
    capped = any(getattr(config, name, None) is not None for name in caps)
    return not capped and all(getattr(config, name, None) in (None, 1) for name in scales)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        ignore_index: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        loss, saved = _forward(hidden, weight, targets, ignore_index, dtype, ctx.needs_input_grad[:2])
        ctx.save_for_backward(*saved)
        ctx.types = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_hidden, of_weight, count = ctx.saved_tensors
        scale = grads[0] / count
        pairs = zip((of_hidden, of_weight), ctx.types, strict=True)
        return (*(None if grad is None else (grad * scale).to(dtype) for grad, dtype in pairs), None, None, None)


def _forward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int,
    dtype: torch.dtype,
    needed: tuple[bool, bool],
) -> tuple[torch.Tensor, _Saved]:
    """The loss; the gradients of its sum by hidden states (rows, features) and by weights; and the rows that count."""
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    counted = targets != ignore_index
    targets = targets.where(counted, 0)
    total = hidden.new_zeros((), dtype=torch.float32)
    of_hidden: list[torch.Tensor] = []
    of_weight: torch.Tensor | None = None
    for rows in _chunks(len(hidden), len(weight)):
        some, target, counts = hidden[rows], targets[rows, None], counted[rows, None]
        logits = (some @ weight.T).float()
        normalizer = logits.logsumexp(1, keepdim=True)
        chosen = logits.gather(1, target)
        total = total + (normalizer - chosen).where(counts, 0).sum()
        if not any(needed):
            continue
        # softmax - one_hot; exp(-inf) is the zero of rows that do not count.
        grad = logits.sub_(normalizer.where(counts, torch.inf)).exp_().to(dtype)
        grad = grad.scatter_(1, target, ((chosen - normalizer).exp() - 1).where(counts, 0).to(dtype))
        if needed[0]:
            of_hidden.append(grad @ weight)
        if needed[1]:
            if of_weight is None:
                of_weight = torch.zeros_like(weight, dtype=torch.float32)
            _accumulate(of_weight, grad.T @ some)
    count = counted.sum()
    return total / count, (torch.cat(of_hidden) if of_hidden else None, of_weight, count)


def _chunks(rows: int, classes: int) -> Iterator[slice]:
    size = max(LOGITS // classes, ceil(rows / CHUNKS))
    for start in range(0, rows, size):
        yield slice(start, start + size)


@torch.library.custom_op("flywheel::accumulate", mutates_args=("total",))
def _accumulate(total: torch.Tensor, part: torch.Tensor) -> None:
    """Add in place. A compiler that saw these additions would make one of them all, and hold all parts until then."""
    total.add_(part)


@cache
def _has_liger() -> bool:
    return find_spec("liger_kernel") is not None


def _liger(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, ignore_index: int) -> torch.Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]

    loss: torch.Tensor = LigerFusedLinearCrossEntropyLoss(ignore_index=ignore_index)(weight, hidden, targets)
    return loss.float()
