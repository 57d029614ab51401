"""Networks that a recipe names to look at pictures: encoders, CLIP and classifiers of transformers.

Each comes from a directory or hub id as safetensors; its code is never run. Pictures are (n, channels, height, width)
in [0, 1]; they are rounded to 8 bits and prepared by the checkpoint's own image processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flywheel.errors import RecipeError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[Any]
Floats = NDArray[np.float64]

BATCH = 32
"""Pictures or texts that are encoded at a time."""


@dataclass(frozen=True)
class Extractor:
    """A vision encoder with its image processor."""

    name: str
    """Directory or hub id."""
    module: Any
    processor: Any

    def features(self, pictures: Array) -> Floats:
        """The projected picture where there is a projection (CLIP), else the mean of the last states: (n, width)."""
        return _batches(pictures, self._encode)

    def _encode(self, pictures: Array) -> Any:
        pixels = _prepared(self.processor, pictures)
        if hasattr(self.module, "get_image_features"):
            return self.module.get_image_features(pixel_values=pixels).pooler_output
        states = self.module(pixel_values=pixels).last_hidden_state
        return states.mean(1) if states.ndim == 3 else states.flatten(2).mean(2)  # tokens, or a map of channels


@dataclass(frozen=True)
class Clip(Extractor):
    """A pair of encoders whose pictures and texts share a space."""

    tokenizer: Any

    def texts(self, texts: Sequence[str]) -> Floats:
        """The projected texts, (n, width)."""
        return _batches(texts, self._encode_texts)

    def _encode_texts(self, texts: Sequence[str]) -> Any:
        longest = self.module.config.text_config.max_position_embeddings
        batch = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
        return self.module.get_text_features(**inputs).pooler_output


@dataclass(frozen=True)
class Classifier:
    """A picture classifier with its image processor."""

    name: str
    module: Any
    processor: Any

    def probabilities(self, pictures: Array) -> Floats:
        """Of each class, (n, classes)."""
        return _batches(pictures, self._encode)

    def _encode(self, pictures: Array) -> Any:
        return self.module(pixel_values=_prepared(self.processor, pictures)).logits.double().softmax(-1)


def open_extractor(name: str) -> Extractor:
    """Raises RecipeError for a checkpoint that cannot be opened, as the others here do."""
    from transformers import AutoImageProcessor, AutoModel

    return Extractor(name, _module(AutoModel, name), _read(AutoImageProcessor, name))


def open_clip(name: str) -> Clip:
    """See `open_extractor`; also for a checkpoint that reads no texts."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    module = _module(AutoModel, name)
    if not hasattr(module, "get_text_features") or not hasattr(module, "get_image_features"):
        raise RecipeError(
            f"extractor {name}",
            found=type(module).__name__,
            expected="a model that encodes pictures and texts, such as CLIP or SigLIP",
            remedy="name another checkpoint under `evaluate.metrics`",
        )
    return Clip(name, module, _read(AutoImageProcessor, name), _read(AutoTokenizer, name))


def open_classifier(name: str) -> Classifier:
    """See `open_extractor`."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    return Classifier(name, _module(AutoModelForImageClassification, name), _read(AutoImageProcessor, name))


def _module(kind: Any, name: str) -> Any:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return _read(kind, name, use_safetensors=True, dtype=torch.float32).eval().requires_grad_(False)


def _read(kind: Any, name: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"extractor {name}",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a directory or hub id with config.json, model.safetensors and preprocessor_config.json",
            remedy="correct its path under `evaluate.metrics`",
        ) from error


def _batches(items: Any, encode: Callable[[Any], Any]) -> Floats:
    """What `encode` makes of all items, some at a time, as numbers (n, width)."""
    import torch

    with torch.inference_mode():
        found = [encode(items[at : at + BATCH]).double().numpy() for at in range(0, len(items), BATCH)]
    return np.concatenate(found)


def _prepared(processor: Any, pictures: Array) -> Any:
    return processor(images=list(_images(pictures)), return_tensors="pt")["pixel_values"]


def _images(pictures: Array) -> Iterator[Image]:
    """As colour pictures; grey ones get three equal channels."""
    from PIL import Image as pillow

    for pixels in np.round(np.clip(pictures, 0, 1) * 255).astype(np.uint8):
        three = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
        yield pillow.fromarray(np.ascontiguousarray(three.transpose(1, 2, 0)), "RGB")
