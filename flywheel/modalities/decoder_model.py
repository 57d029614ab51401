"""What the decoder-only rooms share: making and opening a model with its tokenizer, and text to token ids and back.

A document is `<start> text <end>`. A question is a prompt up to where its answer starts: `prompt <|answer|>`. Prompts
get the special tokens of the tokenizer's own template (none from scratch), so that a server can ask the same with
the tokenizer alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from flywheel import block_attention
from flywheel.errors import RecipeError, TrainingError
from flywheel.modalities.base import Model
from flywheel.modalities.token_rows import Ids
from flywheel.modalities.words import words
from flywheel.recipe_models import DecoderModel

END = "<|endoftext|>"
ANSWER = "<|answer|>"
EMPTY_LINE = "\n\n"
"""Stands between prompt and answer where the tokenizer does not know `ANSWER`."""


def from_scratch(config: DecoderModel, texts: Sequence[str], seed: int, special: Sequence[str] = ()) -> Model:
    """An architecture with random weights and a tokenizer trained on the texts, with further special tokens."""
    tokenizer = train_tokenizer(texts, config, special)
    architecture = architecture_of(config, len(tokenizer), tokenizer.eos_token_id)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            architecture, attn_implementation=attention()
        )
    return Model(_by_blocks(module), tokenizer)


def outline(config: DecoderModel) -> nn.Module:
    """The module of a recipe without its weights; called under fake tensors, it takes no memory."""
    if config.path is None:
        architecture = architecture_of(config, config.tokenizer.vocab_size, 0)
    else:
        try:
            architecture = AutoConfig.from_pretrained(config.path, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise no_checkpoint(config.path, "a causal language model", error) from error
    module: nn.Module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        architecture, dtype=torch.float32, trust_remote_code=False, attn_implementation=attention()
    )
    return _by_blocks(module)


def architecture_of(config: DecoderModel, vocab_size: int, end: int) -> PreTrainedConfig:
    """The sizes of a recipe as transformers names them; the token `end` starts and ends texts."""
    sizes = config.model_dump(exclude={"modality", "path", "tokenizer"})
    architecture: PreTrainedConfig = AutoConfig.for_model(
        vocab_size=vocab_size,
        bos_token_id=end,
        eos_token_id=end,
        head_dim=config.hidden_size // config.num_attention_heads,
        **sizes,
    )
    return architecture


def train_tokenizer(texts: Sequence[str], config: DecoderModel, special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE on these texts; `<|endoftext|>` starts, ends and pads."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=byte_level_bpe(texts, config.tokenizer.vocab_size, [END, ANSWER, *special]),
        bos_token=END,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[ANSWER, *special],
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )


def byte_level_bpe(texts: Sequence[str], vocab_size: int, special_tokens: Sequence[str]) -> Any:
    """A `tokenizers.Tokenizer`: byte-level BPE (Sennrich et al. 2016) trained on these texts; special tokens first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def open_checkpoint(path: str) -> Model:
    """A checkpoint in hub layout, from a directory or by hub id. Safetensors only, no code from it."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        module = AutoModelForCausalLM.from_pretrained(
            path, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, attn_implementation=attention()
        )
    except (OSError, ValueError) as error:
        raise no_checkpoint(path, "a causal language model", error) from error
    for told_by_loading in ("is_local", "local_files_only"):  # would be saved, and equal models differ
        tokenizer.init_kwargs.pop(told_by_loading, None)
    return Model(_by_blocks(module), tokenizer)


def check_length(max_length: int, positions: int) -> None:
    """Raises TrainingError where rows are longer than what a model can look at."""
    if max_length > positions:
        raise TrainingError(
            "train.max_length",
            found=str(max_length),
            expected=f"at most {positions}, the positions of this model",
            remedy="lower max_length, or raise model.max_position_embeddings of a model from scratch",
        )


def no_checkpoint(path: str, what: str, error: Exception) -> RecipeError:
    """What to say of a `model.path` that is not `what`."""
    absent = path.startswith(("/", ".", "~")) and not os.path.isdir(path)
    return RecipeError(
        f"model.path {path}",
        found="no such directory" if absent else str(error).splitlines()[0],
        expected=f"{what} in hub layout with safetensors weights and tokenizer.json",
        remedy="give a directory that holds one, or a hub id that can be reached",
    )


def attention() -> str:
    """On a CPU, compiled plain attention with a mask trains several times as fast as flash attention with one."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def _by_blocks(module: nn.Module) -> nn.Module:
    """On a CPU, attention by blocks where the model can."""
    if isinstance(module, PreTrainedModel) and not torch.cuda.is_available():
        block_attention.use(module)
    return module


def tokenise(model: Model, texts: Sequence[str], template: bool = False) -> list[Ids]:
    """Token ids of each text; what looks like a special token is text. `template` adds what the tokenizer puts around a
    prompt."""
    tokenizer = model.processor.backend_tokenizer
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known = None if template else words(tokenizer)
    found: list[Ids] = []
    for first in range(0, len(texts), 256):  # an encoding takes many times the memory of its ids
        part = [(text, None if known is None else known.ids(text)) for text in texts[first : first + 256]]
        others = [text for text, ids in part if ids is None]
        encodings = iter(tokenizer.encode_batch_fast(others, add_special_tokens=template))
        found += [np.array(next(encodings).ids, dtype=np.int64) if ids is None else ids for _, ids in part]
    return found


def documents(model: Model, texts: Sequence[str]) -> list[Ids]:
    """Token ids of whole documents with their start and end."""
    start, end = _start(model), model.processor.eos_token_id
    return [np.concatenate([[start], ids, [end]]) for ids in tokenise(model, texts)]


def _start(model: Model) -> int:
    tokenizer = model.processor
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)


def started(model: Model, ids: Ids) -> Ids:
    """Token ids behind the token that starts texts."""
    return np.concatenate([[_start(model)], ids]).astype(np.int64)


def questions(model: Model, prompts: Sequence[str]) -> list[Ids]:
    """Token ids of prompts up to where their answers start."""
    answer = model.processor.backend_tokenizer.token_to_id(ANSWER)
    separator = np.array([answer]) if answer is not None else tokenise(model, [EMPTY_LINE])[0]
    return [np.concatenate([ids, separator]) for ids in tokenise(model, prompts, template=True)]


def separator_text(model: Model) -> str:
    """What a user writes between prompt and answer."""
    return ANSWER if model.processor.backend_tokenizer.token_to_id(ANSWER) is not None else EMPTY_LINE


def answers(model: Model, completions: Sequence[str]) -> list[Ids]:
    """Token ids of completions with their end."""
    return [np.concatenate([ids, [model.processor.eos_token_id]]) for ids in tokenise(model, completions)]


def decode(model: Model, ids: Sequence[int] | Ids) -> str:
    """Token ids as text, without special tokens."""
    text: str = model.processor.backend_tokenizer.decode(list(map(int, ids)), skip_special_tokens=True)
    return text


def ends(model: Model) -> list[int]:
    """All tokens that end a text: the tokenizer's and those that the checkpoint names, lowest first."""
    named = model.module.generation_config.eos_token_id  # type: ignore[union-attr]
    return sorted({model.processor.eos_token_id, *(named if isinstance(named, list) else [named])} - {None})


def end_with(model: Model, tokens: Iterable[int]) -> None:
    """Let these tokens end a text as well, where they are special tokens that do not yet."""
    special = {i for i, token in model.processor.added_tokens_decoder.items() if token.special}
    if new := special.intersection(tokens).difference(ends(model)):
        model.module.generation_config.eos_token_id = sorted(new.union(ends(model)))  # type: ignore[union-attr]


def context(model: Model) -> int:
    """The most tokens that the model can look at."""
    return int(model.module.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
