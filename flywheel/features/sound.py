"""Log-mel features of recordings: librosa lays out the bands once, numpy alone measures them.

As librosa's `power_to_db(melspectrogram(...))`, with frames that start with the first sample and end with the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flywheel.features.base import Vectors, part, unreadable
from flywheel.recipe_features import LogMel
from flywheel.record import Record

FLOOR = 1e-10
"""Least power, so that silence has a logarithm."""
_BLOCK = 4_096
"""Frames that are transformed at a time."""


@dataclass(frozen=True)
class MelBands:
    """A filter for each band."""

    config: LogMel
    filters: Vectors
    """Shape (n_mels, n_fft // 2 + 1)."""

    @property
    def width(self) -> int:
        return 2 * len(self.filters)

    def transform(self, rows: Sequence[Record]) -> Vectors:
        """Mean and then standard deviation over time of each band in dB, shape (rows, 2 * n_mels)."""
        found = np.empty((len(rows), self.width), dtype=np.float32)
        for number, row in enumerate(rows):
            bands = self.spectrogram(self._samples(row))
            found[number] = np.concatenate([bands.mean(axis=1), bands.std(axis=1)])
        return found

    def spectrogram(self, samples: Vectors) -> Vectors:
        """Bands in dB over time, shape (n_mels, frames); a recording shorter than a frame is padded with silence."""
        size, hop = self.config.n_fft, self.config.hop_length
        padded = np.pad(samples, (0, max(0, size - len(samples))))
        frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
        window = np.hanning(size + 1)[:-1]
        blocks = [
            self.filters @ (np.abs(np.fft.rfft(frames[at : at + _BLOCK] * window)) ** 2).T
            for at in range(0, len(frames), _BLOCK)
        ]
        bands: Vectors = (10 * np.log10(np.maximum(np.concatenate(blocks, axis=1), FLOOR))).astype(np.float32)
        return bands

    def _samples(self, row: Record) -> Vectors:
        import soxr

        from flywheel.media import Undecodable, decode_audio

        try:
            samples, rate = decode_audio(part(row, "audio"))
        except Undecodable as error:
            raise unreadable(row, "audio", f"{error.reason}: {error.detail}") from error
        mono: Vectors = samples.mean(axis=1)
        return mono if rate == self.config.sample_rate else soxr.resample(mono, rate, self.config.sample_rate)

    def save(self, directory: Path) -> None:
        np.save(directory / "filters.npy", self.filters, allow_pickle=False)


def fit(rows: Iterable[Record], config: LogMel) -> MelBands:
    """Lay out the bands; nothing is learnt from the rows."""
    import librosa

    return MelBands(config, librosa.filters.mel(sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels))


def load(directory: Path, config: LogMel) -> MelBands:
    """Read back what `save` wrote; needs no librosa."""
    return MelBands(config, np.load(directory / "filters.npy", allow_pickle=False))
