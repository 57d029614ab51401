"""Features of pictures: scaled pixels, which need Pillow and numpy alone, and the output of a vision encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flywheel.features.base import Vectors, part, unit, unreadable
from flywheel.features.embeddings import open_encoder, open_processor
from flywheel.recipe_features import ImageEmbeddings, ImagePixels
from flywheel.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


@dataclass(frozen=True)
class Pixels:
    """Scaling to one size."""

    config: ImagePixels

    @property
    def width(self) -> int:
        return self.config.size**2 * (3 if self.config.mode == "RGB" else 1)

    def transform(self, rows: Sequence[Record]) -> Vectors:
        """Pixels 0 to 1, row by row and colour by colour within a pixel, shape (rows, width)."""
        from PIL.Image import Resampling

        found = np.empty((len(rows), self.width), dtype=np.float32)
        for number, row in enumerate(rows):
            scaled = _open(row, self.config.mode).resize((self.config.size,) * 2, Resampling.BILINEAR)
            found[number] = np.asarray(scaled, dtype=np.float32).ravel() / 255
        return found

    def save(self, directory: Path) -> None:
        """Nothing was learnt."""


@dataclass(frozen=True)
class ImageEncoder:
    """A vision transformer with its image processor."""

    config: ImageEmbeddings
    module: Any
    processor: Any

    @property
    def width(self) -> int:
        sizes = self.module.config
        return int(sizes.projection_dim if hasattr(self.module, "get_image_features") else sizes.hidden_size)

    def transform(self, rows: Sequence[Record]) -> Vectors:
        """Shape (rows, width)."""
        import torch

        found = np.empty((len(rows), self.width), dtype=np.float32)
        for at in range(0, len(rows), self.config.batch_size):
            pictures = [_open(row, "RGB") for row in rows[at : at + self.config.batch_size]]
            pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                found[at : at + len(pictures)] = self._encode(pixels).float().numpy()
        return unit(found) if self.config.normalize else found

    def _encode(self, pixels: Any) -> Any:
        if hasattr(self.module, "get_image_features"):
            return self.module.get_image_features(pixel_values=pixels).pooler_output
        return self.module(pixel_values=pixels).last_hidden_state.mean(1)

    def save(self, directory: Path) -> None:
        self.module.save_pretrained(directory / "model")
        self.processor.save_pretrained(directory / "model")


def fit(rows: Iterable[Record], config: ImagePixels | ImageEmbeddings) -> Pixels | ImageEncoder:
    """Open the checkpoint, if there is one; nothing is learnt from the rows."""
    return Pixels(config) if isinstance(config, ImagePixels) else _encoder(config.model, config)


def load(directory: Path, config: ImagePixels | ImageEmbeddings) -> Pixels | ImageEncoder:
    """Read back what `save` wrote."""
    return Pixels(config) if isinstance(config, ImagePixels) else _encoder(str(directory / "model"), config)


def _encoder(path: str, config: ImageEmbeddings) -> ImageEncoder:
    from transformers import AutoImageProcessor

    return ImageEncoder(config, open_encoder(path, config), open_processor(AutoImageProcessor, path, config))


def _open(row: Record, mode: str) -> Picture:
    from flywheel.media import Undecodable, decode_image

    try:
        return decode_image(part(row, "image")).convert(mode)
    except Undecodable as error:
        raise unreadable(row, "image", f"{error.reason}: {error.detail}") from error
