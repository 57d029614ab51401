"""What the decoder-only rooms share: making and opening a model with its tokenizer, and text to token ids and back.

A document is `<start> text <end>`. A question is a prompt up to where its answer starts: `prompt <|answer|>`. Prompts
get the special tokens of the tokenizer's own template (none from scratch), so that a server can ask the same with
the tokenizer alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from flywheel.errors import RecipeError
from flywheel.modalities.base import Model
from flywheel.modalities.token_rows import Ids
from flywheel.modalities.words import words
from flywheel.recipe import DecoderModel

END = "<|endoftext|>"
ANSWER = "<|answer|>"
EMPTY_LINE = "\n\n"
"""Stands between prompt and answer where the tokenizer does not know `ANSWER`."""


def from_scratch(config: DecoderModel, texts: Sequence[str], seed: int) -> Model:
    """An architecture with random weights and a tokenizer trained on the texts."""
    tokenizer = train_tokenizer(texts, config)
    sizes = config.model_dump(exclude={"modality", "path", "tokenizer"})
    end = tokenizer.eos_token_id
    architecture = AutoConfig.for_model(
        vocab_size=len(tokenizer),
        bos_token_id=end,
        eos_token_id=end,
        head_dim=config.hidden_size // config.num_attention_heads,
        **sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            architecture, attn_implementation=_attention()
        )
    return Model(module, tokenizer)


def train_tokenizer(texts: Sequence[str], config: DecoderModel) -> PreTrainedTokenizerFast:
    """Byte-level BPE (Sennrich et al. 2016) on these texts; `<|endoftext|>` starts, ends and pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.tokenizer.vocab_size,
        special_tokens=[END, ANSWER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[ANSWER],
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )


def open_checkpoint(path: str) -> Model:
    """A checkpoint in hub layout, from a directory or by hub id. Safetensors only, no code from it."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        module = AutoModelForCausalLM.from_pretrained(
            path, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, attn_implementation=_attention()
        )
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"model.path {path}",
            found=str(error).splitlines()[0],
            expected="a causal language model in hub layout with safetensors weights and tokenizer.json",
            remedy="give a directory that holds one, or a hub id that can be reached",
        ) from error
    for told_by_loading in ("is_local", "local_files_only"):  # would be saved, and equal models differ
        tokenizer.init_kwargs.pop(told_by_loading, None)
    return Model(module, tokenizer)


def _attention() -> str:
    """On a CPU, compiled plain attention with a mask trains several times as fast as flash attention with one."""
    return "sdpa" if torch.cuda.is_available() else "eager"


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
    tokenizer = model.processor
    end = tokenizer.eos_token_id
    start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [np.concatenate([[start], ids, [end]]) for ids in tokenise(model, texts)]


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


def context(model: Model) -> int:
    """The most tokens that the model can look at."""
    return int(model.module.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
