"""Operations on recordings. Rows without one pass; a recording that cannot be decoded is quarantined.

Changed recordings are written as 16-bit WAV. A recording that needs no change keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from flywheel.media import Samples, Undecodable, decode_audio, encode_wav
from flywheel.record import Outcome, Outcomes, Record, drop, quarantine

CEILING = 10 ** (-1 / 20)
"""Loudness is raised until a sample reaches -1 dBFS at most."""
FRAME, HOP = 0.025, 0.01
"""Seconds over which the level is measured for trimming, and from one measurement to the next."""
NOTHING = -90.0
"""dBFS: what is below is digital silence (16 bits reach down to -96), whose level says nothing."""


def audio_resample(
    rows: Iterable[Record],
    sampling_rate: Annotated[int, Field(ge=1_000, le=384_000)] = 16_000,
    mono: bool = True,
) -> Outcomes:
    """Convert recordings to a sampling rate in Hz (soxr, high quality), and to the mean of their channels.

    Quarantines `corrupt_audio`, `bomb`.
    """
    import soxr

    def resample(row: Record, samples: Samples, rate: int) -> Outcome:
        mixed = samples.mean(axis=1, keepdims=True) if mono and samples.shape[1] > 1 else samples
        if rate == sampling_rate and mixed is samples:
            return row
        changed = mixed if rate == sampling_rate else soxr.resample(mixed, rate, sampling_rate)
        if not len(changed):
            return quarantine(row, "corrupt_audio", f"{len(samples)} frames at {rate} Hz are too few to resample")
        return row.with_fields(audio=encode_wav(changed, sampling_rate))

    for row in rows:
        yield _with_sound(row, resample)


def audio_trim(
    rows: Iterable[Record],
    top_db: Annotated[float, Field(gt=0, le=120)] = 40.0,
    margin: Annotated[float, Field(ge=0)] = 0.05,
) -> Outcomes:
    """Cut silence off both ends: what is `top_db` below the loudest 25 ms. `margin` seconds of it stay.

    Drops `silent` where there is nothing else; quarantines `corrupt_audio`, `bomb`.
    """

    def trim(row: Record, samples: Samples, rate: int) -> Outcome:
        from librosa.effects import trim as bounds

        if level(samples) < NOTHING:
            return drop(row, "silent")
        frame, hop = max(1, round(FRAME * rate)), max(1, round(HOP * rate))
        _, (start, end) = bounds(samples.T, top_db=top_db, ref=np.max, frame_length=frame, hop_length=hop)
        spare = round(margin * rate)
        first, last = max(0, int(start) - spare), min(len(samples), int(end) + spare)
        if (first, last) == (0, len(samples)):
            return row
        return row.with_fields(audio=encode_wav(samples[first:last], rate))

    for row in rows:
        yield _with_sound(row, trim)


def audio_loudness(
    rows: Iterable[Record],
    target_db: Annotated[float, Field(ge=-70, le=0)] = -20.0,
    measure: Literal["rms", "peak"] = "rms",
) -> Outcomes:
    """Bring recordings to the same level in dBFS, of their root mean square or their highest sample.

    This is no perceived loudness (ITU-R BS.1770): frequencies are not weighted and pauses count. For `rms` no sample is
    raised above -1 dBFS, so that a recording with high peaks may stay below the target. Drops `silent`; quarantines
    `corrupt_audio`, `bomb`.
    """

    def scale(row: Record, samples: Samples, rate: int) -> Outcome:
        peak = float(np.abs(samples).max())
        current = 20 * np.log10(peak) if measure == "peak" and peak else level(samples)
        if current < NOTHING:
            return drop(row, "silent")
        gain = 10 ** ((target_db - current) / 20)
        if measure == "rms":
            gain = min(gain, max(CEILING / peak, 1.0))
        return row.with_fields(audio=encode_wav(samples * np.float32(gain), rate))

    for row in rows:
        yield _with_sound(row, scale)


def audio_filter(
    rows: Iterable[Record],
    min_seconds: Annotated[float, Field(ge=0)] = 0.1,
    max_seconds: Annotated[float | None, Field(gt=0)] = None,
    silence_db: Annotated[float, Field(ge=-120, le=0)] = -60.0,
) -> Outcomes:
    """Drop recordings that are `too_short`, `too_long` or `silent` (root mean square below `silence_db` dBFS).

    Quarantines `corrupt_audio`, `bomb`.
    """

    def judge(row: Record, samples: Samples, rate: int) -> Outcome:
        seconds = len(samples) / rate
        if seconds < min_seconds:
            return drop(row, "too_short", f"{seconds:.2f} s")
        if max_seconds is not None and seconds > max_seconds:
            return drop(row, "too_long", f"{seconds:.2f} s")
        return drop(row, "silent") if level(samples) < silence_db else row

    for row in rows:
        yield _with_sound(row, judge)


def level(samples: Samples) -> float:
    """Root mean square in dBFS: 0 for a full-scale square wave, -inf for nothing at all."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10 * float(np.log10(power)) if power else -np.inf


def _with_sound(row: Record, change: Callable[[Record, Samples, int], Outcome]) -> Outcome:
    if row.audio is None:
        return row
    try:
        return change(row, *decode_audio(row.audio))
    except Undecodable as error:
        return quarantine(row, error.reason, error.detail)
