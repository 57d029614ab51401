"""Encoder-decoder models with their tokenizers: from scratch, what surrounds a text, and the two graphs of an export.

A text is `<prefix> tokens <suffix>`, as the tokenizer's own template has it (T5: `tokens </s>`, BART: `<s> tokens
</s>`), on both sides, so that a server can ask the same with the tokenizer alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from flywheel.errors import RecipeError
from flywheel.modalities import single_pass_model
from flywheel.modalities.base import Graph, Model
from flywheel.modalities.decoder_model import attention, byte_level_bpe, tokenise
from flywheel.modalities.span_corruption import sentinels
from flywheel.modalities.token_rows import Ids
from flywheel.recipe_models import TextSeq2SeqModel

PAD, END = "<pad>", "</s>"
UNSTATED = 1_000_000
"""A tokenizer's limit above this says that it has none."""
USUAL = 512
"""Taken for the limit of a model without one."""
WHAT = "an encoder-decoder language model"


def from_scratch(config: TextSeq2SeqModel, texts: Sequence[str], seed: int) -> Model:
    """A T5 (version 1.1: gated GELU) with random weights and a tokenizer trained on the texts."""
    tokenizer = _train_tokenizer(texts, config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Model(_module(_architecture(config, len(tokenizer))), tokenizer)


def outline(config: TextSeq2SeqModel) -> nn.Module:
    """The module of a recipe without its weights; called under fake tensors, it takes no memory."""
    if config.path is None:
        return _module(_architecture(config, config.tokenizer.vocab_size))
    return _module(single_pass_model.config_of(config.path, WHAT))


def open_checkpoint(path: str) -> Model:
    """A checkpoint in hub layout, from a directory or by hub id. Raises RecipeError, also where the model cannot say
    how its answers start and end."""
    model = single_pass_model.open_checkpoint(path, AutoModelForSeq2SeqLM, WHAT, 0)
    if start(model) is None or not model.processor.is_fast or not ends(model):
        raise RecipeError(
            f"model.path {path}",
            found=f"decoder_start_token_id {start(model)}, end tokens {ends(model)}",
            expected="a start token of the decoder, an end token, and a tokenizer.json",
            remedy="complete generation_config.json, or save the tokenizer as tokenizer.json",
        )
    tokenizer = model.processor.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return model


def longest(model: Model) -> int:
    """Most tokens of a prompt, and of an answer."""
    positions = _positions(model)
    stated = model.processor.model_max_length
    if positions is not None:
        return int(min(positions, stated))
    return int(stated) if stated < UNSTATED else USUAL


def context(model: Model) -> int:
    """Most tokens that prompt and answer have together when the model is asked: a model with a place for each position
    has as many for both, one that looks at distances (T5) bears both at their longest."""
    return longest(model) * (1 if _positions(model) else 2)


def _positions(model: Model) -> int | None:
    config: Any = model.module.config
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found else None


def start(model: Model) -> int | None:
    """The token that stands before every answer."""
    module: Any = model.module
    for config in (module.generation_config, module.config):
        found = getattr(config, "decoder_start_token_id", None)
        if found is not None:
            return int(found)
    return None


def ends(model: Model) -> list[int]:
    """All tokens that end an answer: the tokenizer's and those that the checkpoint names, lowest first."""
    module: Any = model.module
    named = module.generation_config.eos_token_id
    return sorted({model.processor.eos_token_id, *(named if isinstance(named, list) else [named])} - {None})


def forced(model: Model) -> int | None:
    """The token that every answer starts with (BART), where the checkpoint names one."""
    found = getattr(model.module.generation_config, "forced_bos_token_id", None)
    return None if found is None else int(found)


class Around(NamedTuple):
    """What a tokenizer's template puts before and after a text."""

    prefix: Ids
    suffix: Ids

    @classmethod
    def of(cls, model: Model) -> Around:
        encoded = model.processor.backend_tokenizer.encode("a")
        ids, own = np.array(encoded.ids, dtype=np.int64), np.flatnonzero(np.array(encoded.special_tokens_mask) == 0)
        return cls(ids[: own[0]], ids[own[-1] + 1 :])

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def put(self, ids: Ids) -> Ids:
        return np.concatenate([self.prefix, ids, self.suffix])


def around_answers(model: Model) -> Around:
    """As the template has it, with the end token where the template has none."""
    found = Around.of(model)
    if len(found.suffix) and found.suffix[-1] in ends(model):
        return found
    return Around(found.prefix, np.append(found.suffix, model.processor.eos_token_id))


def prompts(model: Model, texts: Sequence[str]) -> list[Ids]:
    """Token ids of prompts as the encoder reads them."""
    around = Around.of(model)
    return [around.put(ids) for ids in tokenise(model, texts)]


def answers(model: Model, texts: Sequence[str]) -> list[Ids]:
    """Token ids of answers as the decoder writes them, with their end."""
    around = around_answers(model)
    return [around.put(ids) for ids in tokenise(model, texts)]


def shown(model: Model, ids: Ids) -> str:
    """Token ids as text for people: the sentinels of gaps stay, padding, start and end do not."""
    hidden = {model.processor.pad_token_id, model.processor.bos_token_id, start(model), *ends(model)}
    text: str = model.processor.backend_tokenizer.decode(
        [int(i) for i in ids if int(i) not in hidden], skip_special_tokens=False
    )
    return text


def graphs(model: Model) -> dict[str, Graph]:
    """`encoder` and `decoder` as flywheel.runtimes.seq2seq runs them."""
    module: Any = model.module
    module.set_attn_implementation("eager")
    encoder, decoder = _Encoder(module), _Decoder(module)
    ids = torch.arange(2 * 7).view(2, 7) % 5 + 1
    mask = torch.ones_like(ids)
    with torch.no_grad():
        cross = encoder.eval()(ids, mask)
    past = tuple(torch.zeros(*part.shape[:2], 3, part.shape[3]) for part in cross)
    names = [f"{i}.{part}" for i in range(len(cross) // 2) for part in ("key", "value")]
    crosses, pasts = ([f"{kind}.{name}" for name in names] for kind in ("cross", "past_key_values"))
    read = {"input_ids": {0: "batch", 1: "prompt"}, "attention_mask": {0: "batch", 1: "prompt"}}
    kept = {
        **{name: {0: "batch", 2: "prompt"} for name in crosses},
        **{name: {0: "batch", 2: "past"} for name in pasts},
    }
    written = {**read, "input_ids": {0: "batch", 1: "seq"}, **kept}
    presents = [f"present.{name}" for name in names]
    return {
        "encoder": Graph(encoder, (ids, mask), tuple(read), tuple(crosses), read),
        "decoder": Graph(decoder, (ids[:, :2], mask, cross, past), tuple(written), ("logits", *presents), written),
    }


class _Encoder(nn.Module):
    """What every block of the decoder looks at of a prompt; the rest of the decoder is left out of the graph."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "decoder_input_ids": input_ids[:, :1]}
        self.module(**inputs, past_key_values=cache, use_cache=True)
        return _flat(cache.cross_attention_cache)


class _Decoder(nn.Module):
    """Logits and the grown cache."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        cross: tuple[torch.Tensor, ...],
        past: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, ...]:
        own, other = (DynamicCache(list(zip(flat[::2], flat[1::2], strict=True))) for flat in (past, cross))
        cache = EncoderDecoderCache(own, other)  # a filled cross-attention cache is used as it is
        out = self.module(
            encoder_outputs=(cross[0][:, 0],),  # of which the shape alone is looked at
            attention_mask=attention_mask,
            decoder_input_ids=input_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return out.logits, *_flat(cache.self_attention_cache)


def _flat(cache: Any) -> tuple[torch.Tensor, ...]:
    return tuple(part for layer in cache.layers for part in (layer.keys, layer.values))


def _architecture(config: TextSeq2SeqModel, vocab_size: int) -> PreTrainedConfig:
    architecture: PreTrainedConfig = AutoConfig.for_model(
        "t5",
        vocab_size=vocab_size,
        d_model=config.hidden_size,
        d_ff=config.intermediate_size,
        d_kv=config.hidden_size // config.num_attention_heads,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        dropout_rate=config.dropout_rate,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return architecture


def _module(architecture: PreTrainedConfig) -> nn.Module:
    module: nn.Module = AutoModelForSeq2SeqLM.from_config(  # type: ignore[no-untyped-call]
        architecture, dtype=torch.float32, trust_remote_code=False, attn_implementation=attention()
    )
    return module


def _train_tokenizer(texts: Sequence[str], config: TextSeq2SeqModel) -> PreTrainedTokenizerFast:
    """Byte-level BPE on these texts, with `</s>` behind each of them and a sentinel for each gap of the longest one."""
    from tokenizers.processors import TemplateProcessing

    gaps = sentinels(config.max_position_embeddings)
    tokenizer = byte_level_bpe(texts, config.tokenizer.vocab_size, [PAD, END, *gaps])
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=gaps,
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )
