"""What the rooms of one pass share: opening a checkpoint, and a transformers model as a function of ids and mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from flywheel.modalities import decoder_model
from flywheel.modalities.base import Array, Graph, Model
from flywheel.runtimes.single_pass import Ids, Pass


def open_checkpoint(path: str, auto: Any, what: str, seed: int, **options: Any) -> Model:
    """A checkpoint in hub layout as the class `auto`, from a directory or by hub id; weights of a head that it lacks
    are drawn with `seed`. Safetensors only, no code from it. Raises RecipeError."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = auto.from_pretrained(
                path,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=decoder_model.attention(),
                **options,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise decoder_model.no_checkpoint(path, what, error) from error
    for told_by_loading in ("is_local", "local_files_only"):  # would be saved, and equal models differ
        tokenizer.init_kwargs.pop(told_by_loading, None)
    return Model(module, tokenizer)


def config_of(path: str, what: str) -> Any:
    """The sizes of a checkpoint. Raises RecipeError."""
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise decoder_model.no_checkpoint(path, what, error) from error


def save(model: Model, directory: Path) -> None:
    """Hub layout: model.safetensors, config.json, tokenizer.json, tokenizer_config.json."""
    model.module.save_pretrained(directory)  # type: ignore[operator]
    model.processor.save_pretrained(directory, save_jinja_files=False)


def save_tokenizer(model: Model, directory: Path) -> None:
    """tokenizer.json for a runtime: it neither cuts nor pads."""
    tokenizer = model.processor.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(directory / "tokenizer.json"))


def context(model: Model) -> int:
    """The most tokens of one text: positions that the model has (RoBERTa's start behind the padding's)."""
    module: Any = model.module
    tables = (m for name, m in module.named_modules() if name.endswith("position_embeddings"))
    first = max((t.padding_idx + 1 for t in tables if getattr(t, "padding_idx", None) is not None), default=0)
    return min(int(module.config.max_position_embeddings) - first, int(model.processor.model_max_length))


def check_length(model: Model, max_length: int) -> None:
    """Raises TrainingError where rows are longer than the model's positions."""
    decoder_model.check_length(max_length, context(model))


def torch_pass(model: Model) -> Pass:
    """The module as a function of arrays, in evaluation mode, on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = model.module.to(device).eval()

    def run(ids: Ids, mask: Ids) -> Array:
        inputs = {"input_ids": ids, "attention_mask": mask}
        with torch.inference_mode():
            out = module(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()})
            logits: Array = out.logits.float().cpu().numpy()
        return logits

    return run


def graph(model: Model) -> Graph:
    """The module as one graph: `input_ids` and `attention_mask` (batch, seq) in, `logits` out."""
    ids = torch.arange(2 * 8).view(2, 8) % 7 + 1
    inputs = ("input_ids", "attention_mask")
    dynamic = {name: {0: "batch", 1: "seq"} for name in inputs}
    return Graph(_OnePass(model.module), (ids, torch.ones_like(ids)), inputs, ("logits",), dynamic)


class _OnePass(nn.Module):
    """A model with two inputs and one output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits
