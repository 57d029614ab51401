"""Pictures that have a label each: rows as arrays, and what a model draws for the labels of rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flywheel.errors import TrainingError
from flywheel.metrics.image import Judge
from flywheel.modalities.base import Array
from flywheel.record import Record
from flywheel.runtimes.base import Predictor, Sampling


@dataclass(frozen=True)
class Painted:
    """See flywheel.metrics.base.Painter."""

    predictor: Predictor
    labels: tuple[str, ...]
    shape: tuple[int, int]
    """Channels and side."""
    judge: Judge
    drawn: dict[tuple[tuple[str | None, ...], Sampling], Array] = field(default_factory=dict, compare=False, repr=False)
    """What was drawn for some labels, so that several metrics look at the same pictures."""

    def pictures(self, rows: Sequence[Record], sampling: Sampling) -> tuple[Array, Array]:
        asked = tuple(row.label for row in rows), sampling
        if asked not in self.drawn:
            self.drawn[asked] = np.stack(self.predictor.generate(asked[0], sampling))
        return self.drawn[asked], self.real(rows)

    def real(self, rows: Sequence[Record]) -> Array:
        return arrays(rows, self.labels, self.shape)[0]


def arrays(rows: Sequence[Record], labels: Sequence[str], shape: tuple[int, int]) -> tuple[Array, Array]:
    """Pictures (n, channels, side, side) float32 in [0, 1] and class ids (n,) of rows. Raises TrainingError."""
    ids = {label: i for i, label in enumerate(labels)}
    pictures = []
    for row in rows:
        if row.label not in ids:
            raise TrainingError(f"row {row.id}", found=f"label {row.label}", expected=f"one of {', '.join(labels)}")
        try:
            pictures.append(decode(row.image or b"", "L" if shape[0] == 1 else "RGB", shape[1]))
        except ValueError as error:
            remedy = "expect `decodes` to be true under `data.validate`"
            raise TrainingError(f"row {row.id}", found=str(error), expected="a picture", remedy=remedy) from error
    return np.stack(pictures), np.array([ids[str(row.label)] for row in rows], dtype=np.int64)


def decode(data: bytes, mode: str, side: int | None) -> Array:
    """An encoded picture as (channels, height, width) float32 in [0, 1], resized where asked. Raises ValueError."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            converted = picture.convert(mode)
            if side is not None and converted.size != (side, side):
                converted = converted.resize((side, side), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture that can be decoded: {error}") from error
    pixels = np.asarray(converted, np.float32) / 255
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
