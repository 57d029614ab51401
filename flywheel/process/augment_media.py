"""Augmentation of pictures and recordings: varied copies of training rows, made after the split.

As for texts (`flywheel.process.augment`), copy k of a row depends on (seed, row id, k) alone, and carries the row's
label and group: where turning a picture changes what it shows (a 6, an arrow), do not turn it. Rows without a picture
or a recording, or with one that cannot be decoded, give no copies. Copies are PNG and 16-bit WAV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from flywheel.media import Samples, Undecodable, decode_audio, decode_image, encode_png, encode_wav
from flywheel.process.audio import level
from flywheel.process.augment import Copies, Probability, Seed, generator, twin
from flywheel.process.images import plain
from flywheel.record import Outcomes, Record

if TYPE_CHECKING:
    from numpy.random import Generator
    from PIL.Image import Image

WINDOW = 0.064
"""Seconds of the windows of the phase vocoder, rounded to a power of two of samples."""


def random_rotate(
    rows: Iterable[Record],
    degrees: Annotated[float, Field(gt=0, le=180)] = 10.0,
    copies: Copies = 1,
    seed: Seed = 0,
) -> Outcomes:
    """Turn by an angle drawn from [-degrees, degrees], bicubic, same size; corners are black, or transparent."""
    from PIL.Image import Resampling

    def rotate(image: Image, rng: Generator) -> Image:
        return image.rotate(rng.uniform(-degrees, degrees), resample=Resampling.BICUBIC)

    for row in rows:
        yield from _pictures(row, "random_rotate", rotate, copies, seed)


def horizontal_flip(rows: Iterable[Record], probability: Probability = 1.0, seed: Seed = 0) -> Outcomes:
    """Mirror left and right: one copy of a row, with a probability."""
    from PIL.Image import Transpose

    for row in rows:
        if generator(row, "horizontal_flip", 0, seed).random() < probability:
            yield from _pictures(
                row, "horizontal_flip", lambda image, _: image.transpose(Transpose.FLIP_LEFT_RIGHT), 1, seed
            )


def random_brightness(
    rows: Iterable[Record],
    change: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    copies: Copies = 1,
    seed: Seed = 0,
) -> Outcomes:
    """Multiply all values by a factor drawn from [1 - change, 1 + change], up to white."""
    from PIL import ImageEnhance

    def brighten(image: Image, rng: Generator) -> Image:
        return ImageEnhance.Brightness(image).enhance(rng.uniform(1 - change, 1 + change))

    for row in rows:
        yield from _pictures(row, "random_brightness", brighten, copies, seed)


def random_crop(
    rows: Iterable[Record],
    scale: Annotated[float, Field(gt=0, lt=1)] = 0.8,
    copies: Copies = 1,
    seed: Seed = 0,
) -> Outcomes:
    """Cut out a part of the same proportions, its sides a share drawn from [scale, 1], and bring it to full size."""
    from PIL.Image import Resampling

    def crop(image: Image, rng: Generator) -> Image:
        share = rng.uniform(scale, 1)
        width, height = max(1, round(share * image.width)), max(1, round(share * image.height))
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        return image.resize(image.size, Resampling.LANCZOS, (left, top, left + width, top + height))

    for row in rows:
        yield from _pictures(row, "random_crop", crop, copies, seed)


def add_noise(
    rows: Iterable[Record],
    min_snr_db: Annotated[float, Field(ge=-20, le=100)] = 15.0,
    max_snr_db: Annotated[float, Field(ge=-20, le=100)] = 30.0,
    copies: Copies = 1,
    seed: Seed = 0,
) -> Outcomes:
    """Add white Gaussian noise, at a signal-to-noise ratio drawn from [min_snr_db, max_snr_db] decibels."""

    def noise(samples: Samples, rate: int, rng: Generator) -> Samples:
        ratio = rng.uniform(min(min_snr_db, max_snr_db), max_snr_db)
        scale = 10 ** ((level(samples) - ratio) / 20)
        return samples + np.float32(scale) * rng.standard_normal(samples.shape, dtype=np.float32)

    for row in rows:
        yield from _recordings(row, "add_noise", noise, copies, seed)


def change_speed(
    rows: Iterable[Record],
    change: Annotated[float, Field(gt=0, le=0.5)] = 0.1,
    copies: Copies = 1,
    seed: Seed = 0,
) -> Outcomes:
    """Play faster or slower by a factor drawn from [1 - change, 1 + change] (Ko et al. 2015): pitch changes as well."""
    import soxr

    def speed(samples: Samples, rate: int, rng: Generator) -> Samples:
        changed: Samples = soxr.resample(samples, rate * rng.uniform(1 - change, 1 + change), rate)
        return changed

    for row in rows:
        yield from _recordings(row, "change_speed", speed, copies, seed)


def change_pitch(
    rows: Iterable[Record],
    semitones: Annotated[float, Field(gt=0, le=12)] = 2.0,
    copies: Copies = 1,
    seed: Seed = 0,
) -> Outcomes:
    """Shift the pitch by steps drawn from [-semitones, semitones]; the duration stays (phase vocoder of librosa)."""

    def pitch(samples: Samples, rate: int, rng: Generator) -> Samples:
        from librosa.effects import pitch_shift

        steps = rng.uniform(-semitones, semitones)
        window = 2 ** round(np.log2(WINDOW * rate))
        short = max(0, window - len(samples))
        padded = np.pad(samples, ((0, short), (0, 0)))
        changed = pitch_shift(padded.T, sr=rate, n_steps=steps, n_fft=window, res_type="soxr_hq")
        return np.ascontiguousarray(changed.T[: len(samples)], dtype=np.float32)

    for row in rows:
        yield from _recordings(row, "change_pitch", pitch, copies, seed)


def _pictures(
    row: Record, operation: str, vary: Callable[[Image, Generator], Image], copies: int, seed: int
) -> Iterator[Record]:
    if row.image is None:
        return
    try:
        image = plain(decode_image(row.image))
    except Undecodable:
        return
    pixels = encode_png(image)
    for k in range(copies):
        changed = encode_png(vary(image, generator(row, operation, k, seed)))
        if changed != pixels:
            yield twin(row, operation, k, {"image": changed})


def _recordings(
    row: Record, operation: str, vary: Callable[[Samples, int, Generator], Samples], copies: int, seed: int
) -> Iterator[Record]:
    if row.audio is None:
        return
    try:
        samples, rate = decode_audio(row.audio)
    except Undecodable:
        return
    for k in range(copies):
        changed = vary(samples, rate, generator(row, operation, k, seed))
        if len(changed):
            yield twin(row, operation, k, {"audio": encode_wav(changed, rate)})
