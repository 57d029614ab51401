"""Causal attention by blocks of queries: what lies in the future of a whole block is never computed.

A model's own attention (transformers' `eager`, with its caps, sinks and groups) is asked block after block, each with
the keys up to its end: at four blocks 5/8 of the work and of the memory. On a CPU, compiled, this trains faster than
whole eager attention, which is several times as fast as flash attention with the mask that packed rows need. The result
is the same but for rounding.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "causal_blocks"
"""Its name as an `attn_implementation`."""
BLOCK, BLOCKS = 128, 4
"""Fewest queries of a block, and most blocks of a row: each is compiled by itself."""


def use(module: PreTrainedModel) -> None:
    """Let a causal language model attend by blocks from now on; one that cannot is left as it is."""
    if module._supports_attention_backend and _own(module) is not None:
        AttentionInterface.register(NAME, blocks)
        AttentionMaskInterface.register(NAME, eager_mask)
        module.set_attn_implementation(NAME)


def blocks(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `query` (batch, heads, length, size) on as many keys, with a float mask (batch, 1, length, length)
    that hides the future: (batch, length, heads, size). Whole where there is no such mask, or more keys in a cache."""
    attention: Any = _own(module)
    length = query.shape[2]
    causal = getattr(module, "is_causal", True) and attention_mask is not None and key.shape[2] == length
    size = max(BLOCK, -(-length // BLOCKS)) if causal and options.get("position_bias") is None else length
    parts = []
    for start in range(0, length, size):
        end = min(start + size, length)
        mask = None if attention_mask is None else attention_mask[:, :, start:end, : end if causal else None]
        keys = (key[:, :, :end], value[:, :, :end]) if causal else (key, value)
        parts.append(attention(module, query[:, :, start:end], *keys, mask, **options)[0])
    return torch.cat(parts, 1), None


def _own(module: nn.Module) -> Any:
    """The eager attention of the model that a module belongs to."""
    return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
