"""Embeddings of text: the last hidden states of any transformer, averaged over the tokens.

The checkpoint is copied into the artifact, so that the vectors can be made again when the hub or the training run is
gone. Safetensors only, no code from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.errors import RecipeError
from flywheel.features.base import Vectors, text, unit
from flywheel.recipe_features import Embeddings, Encoder
from flywheel.record import Record


@dataclass(frozen=True)
class TextEncoder:
    """A transformer with its tokenizer."""

    config: Embeddings
    module: Any
    tokenizer: Any

    @property
    def width(self) -> int:
        return int(self.module.config.get_text_config().hidden_size)

    def transform(self, rows: Sequence[Record]) -> Vectors:
        """Shape (rows, width); zeros for a row without tokens."""
        texts = [text(row) for row in rows]
        found = np.zeros((len(rows), self.width), dtype=np.float32)
        order = sorted((i for i in range(len(rows)) if texts[i].strip()), key=lambda i: (len(texts[i]), i))
        for at in range(0, len(order), self.config.batch_size):
            places = order[at : at + self.config.batch_size]
            found[places] = self._encode([texts[i] for i in places])
        return unit(found) if self.config.normalize else found

    def _encode(self, texts: list[str]) -> Vectors:
        import torch

        longest = min(self.config.max_length, getattr(self.module.config, "max_position_embeddings", 1 << 30))
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=longest, padding_side="right", return_tensors="pt"
        )
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            states = self.module(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][..., None].float()
            mean: Vectors = ((states * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy()
        return mean

    def save(self, directory: Path) -> None:
        self.module.save_pretrained(directory / "model")
        self.tokenizer.save_pretrained(directory / "model")


def fit(rows: Iterable[Record], config: Embeddings) -> TextEncoder:
    """Open the checkpoint; nothing is learnt from the rows. Raises RecipeError for one that cannot be opened."""
    return _open(config.model, config)


def load(directory: Path, config: Embeddings) -> TextEncoder:
    """Read back what `save` wrote."""
    return _open(str(directory / "model"), config)


def _open(path: str, config: Embeddings) -> TextEncoder:
    from transformers import AutoTokenizer

    module, tokenizer = open_encoder(path, config), open_processor(AutoTokenizer, path, config)
    if module.config.is_encoder_decoder:
        module = module.get_encoder()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return TextEncoder(config, module, tokenizer)


def open_encoder(path: str, config: Encoder) -> Any:
    """The transformer of a checkpoint without its head, in float32 and ready to encode."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options = {"use_safetensors": True, "dtype": torch.float32}
    return open_processor(AutoModel, path, config, **options).eval().requires_grad_(False)


def open_processor(kind: Any, path: str, config: Encoder, **options: Any) -> Any:
    """What `kind.from_pretrained` reads. Raises RecipeError where it cannot."""
    try:
        return kind.from_pretrained(path, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"model {config.model} of features",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a directory or hub id with config.json, model.safetensors and a tokenizer or image processor",
            remedy="correct `model` under `features`",
        ) from error
