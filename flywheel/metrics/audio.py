"""Metrics of speech and sound: distances of spectra, errors of duration, and what a recogniser understands.

Recordings are mono, (samples,) float32 within [-1, 1], at the sampling rate of `Frames`; generated and reference come
in pairs. Spectra are librosa's. No room speaks yet, so a recipe cannot name these metrics.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.errors import RecipeError
from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.scores import Floats, Scores

Samples = NDArray[np.float32]
Recogniser = Callable[[Samples, int], str]
"""The words in a recording, given its samples and its sampling rate in Hz."""

COEFFICIENTS = 13
"""Mel-cepstral coefficients that are compared; the one before them, the loudness, is left out."""
LEAST_POWER = 1e-10
LEAST_AMPLITUDE = 1e-5


@dataclass(frozen=True)
class Frames:
    """How recordings are cut into frames (names of librosa)."""

    sample_rate: int = 22_050
    n_fft: int = 1_024
    hop_length: int = 256
    n_mels: int = 80


# ---------------------------------------------------------------- distances of spectra


def mel_cepstral_distance(
    references: Sequence[Samples],
    generated: Sequence[Samples],
    frames: Frames = Frames(),
    *,
    align: bool = True,
    seed: int = 0,
) -> Metric:
    """Mean over recordings of the mel-cepstral distance in dB (Kubichek 1993).

    It is the root mean square difference of two mel spectra in dB after they were smoothed to 13 coefficients, averaged
    over frames. With `align` over the frames of the path that dynamic time warping finds, so that speaking slower costs
    nothing; else over the frames of the shorter recording. Figures of other mel filters or vocoders do not compare.
    """
    measure = _warped if align else _straight
    values = [
        measure(_cepstra(one, frames), _cepstra(other, frames))
        for one, other in zip(references, generated, strict=True)
    ]
    detail = {**_detail(frames), "align": align, "coefficients": COEFFICIENTS}
    return _mean("mel_cepstral_distance", values, seed, "dB", detail)


def log_spectral_distance(
    references: Sequence[Samples], generated: Sequence[Samples], frames: Frames = Frames(), *, seed: int = 0
) -> Metric:
    """Mean over recordings and frames of the root mean square difference of two power spectra in dB.

    Over the frames of the shorter recording (Gray & Markel 1976).
    """
    root = np.sqrt(frames.n_fft // 2 + 1)
    values = [
        _straight(_decibels(one, frames), _decibels(other, frames)) / root
        for one, other in zip(references, generated, strict=True)
    ]
    return _mean("log_spectral_distance", values, seed, "dB", _detail(frames))


def mel_l1(
    references: Sequence[Samples], generated: Sequence[Samples], frames: Frames = Frames(), *, seed: int = 0
) -> Metric:
    """Mean over recordings of the mean absolute difference of two log-mel spectra, in natural logarithms of amplitude.

    As HiFi-GAN (Kong et al. 2020) is trained and reported; over the frames of the shorter recording.
    """
    values = []
    for one, other in zip(references, generated, strict=True):
        a, b = _log_mel(one, frames), _log_mel(other, frames)
        shared = min(a.shape[1], b.shape[1])
        values.append(float(np.abs(a[:, :shared] - b[:, :shared]).mean()))
    return _mean("mel_l1", values, seed, "nepers", _detail(frames))


def duration_error(
    references: Sequence[Samples], generated: Sequence[Samples], sample_rate: int, *, seed: int = 0
) -> Metric:
    """Mean over recordings of how many seconds the generated one is too long or too short."""
    values = [abs(len(one) - len(other)) / sample_rate for one, other in zip(references, generated, strict=True)]
    return _mean("duration_error", values, seed, "s", {"sample_rate": sample_rate, "examples": len(values)})


def _cepstra(samples: Samples, frames: Frames) -> Floats:
    """Coefficients over time, (13, frames), scaled so that Euclidean distances are root mean squares in dB."""
    import librosa

    mel = librosa.feature.melspectrogram(y=samples, sr=frames.sample_rate, **_cut(frames), n_mels=frames.n_mels)
    bands = librosa.power_to_db(mel, amin=LEAST_POWER, top_db=None)
    found: Floats = librosa.feature.mfcc(S=bands, n_mfcc=COEFFICIENTS + 1)[1:] / np.sqrt(frames.n_mels)
    return found


def _decibels(samples: Samples, frames: Frames) -> Floats:
    """Power over time in dB, (n_fft // 2 + 1, frames)."""
    import librosa

    power = np.abs(librosa.stft(samples, **_cut(frames))) ** 2
    found: Floats = librosa.power_to_db(power, amin=LEAST_POWER, top_db=None)
    return found


def _log_mel(samples: Samples, frames: Frames) -> Floats:
    """ln of amplitudes over time, (n_mels, frames)."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=samples, sr=frames.sample_rate, **_cut(frames), n_mels=frames.n_mels, power=1.0
    )
    found: Floats = np.log(np.maximum(mel, LEAST_AMPLITUDE))
    return found


def _cut(frames: Frames) -> dict[str, Any]:
    return {"n_fft": frames.n_fft, "hop_length": frames.hop_length}


def _straight(a: Floats, b: Floats) -> float:
    """Mean Euclidean distance of frames (k, frames) at the same place."""
    shared = min(a.shape[1], b.shape[1])
    return float(np.linalg.norm(a[:, :shared] - b[:, :shared], axis=0).mean())


def _warped(a: Floats, b: Floats) -> float:
    """Mean Euclidean distance of frames (k, frames) along the path of dynamic time warping."""
    import librosa

    costs, path = librosa.sequence.dtw(X=a, Y=b, metric="euclidean")
    return float(costs[-1, -1] / len(path))


# ---------------------------------------------------------------- words


def word_error_rate(references: Sequence[str], transcripts: Sequence[str], *, seed: int = 0) -> Metric:
    """Words substituted, left out and inserted per word of the references, as jiwer counts them; 0 is right.

    Words are what lies between blanks; see `spoken` for taking case and punctuation away first.
    """
    return _word_error_rate("word_error_rate", references, transcripts, seed, {})


def recognised_word_error_rate(
    references: Sequence[str],
    recordings: Sequence[Samples],
    sample_rate: int,
    recogniser: Recogniser | str,
    *,
    seed: int = 0,
) -> Metric:
    """`word_error_rate` of what a recogniser understands of the recordings, without case and punctuation.

    `recogniser` is a function, or the directory or hub id of a checkpoint for `open_recogniser`. Its own errors are
    part of the figure: compare with that of natural recordings.
    """
    hears = open_recogniser(recogniser) if isinstance(recogniser, str) else recogniser
    understood = [spoken(hears(samples, sample_rate)) for samples in recordings]
    name = recogniser if isinstance(recogniser, str) else getattr(recogniser, "__name__", type(recogniser).__name__)
    detail = {"recogniser": name}
    return _word_error_rate("recognised_word_error_rate", list(map(spoken, references)), understood, seed, detail)


def spoken(text: str) -> str:
    """The words alone, as they are spoken: small letters, digits and apostrophes, between single blanks."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    kept = (c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    return " ".join("".join(kept).split())


def open_recogniser(name: str) -> Recogniser:
    """A recogniser of transformers (CTC, or sequence to sequence such as Whisper), from a directory or hub id.

    Raises RecipeError for one that cannot be opened. Recordings are brought to its sampling rate.
    """
    import torch
    import transformers

    open_pipeline: Any = transformers.pipeline  # whose overloads know no task given with options
    options = {"trust_remote_code": False, "dtype": torch.float32, "model_kwargs": {"use_safetensors": True}}
    try:
        pipe = open_pipeline("automatic-speech-recognition", name, **options)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"recogniser {name}",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a directory or hub id with config.json, model.safetensors, preprocessor_config.json, a tokenizer",
            remedy="correct the path of the recogniser",
        ) from error
    own_rate = int(pipe.feature_extractor.sampling_rate)

    def recognise(samples: Samples, sample_rate: int) -> str:
        import soxr

        heard = samples if sample_rate == own_rate else soxr.resample(samples, sample_rate, own_rate)
        return str(pipe({"raw": np.asarray(heard, np.float32), "sampling_rate": own_rate})["text"])

    return recognise


def _word_error_rate(
    name: str, references: Sequence[str], transcripts: Sequence[str], seed: int, detail: Mapping[str, Any]
) -> Metric:
    import jiwer

    parts = []
    for reference, transcript in zip(references, transcripts, strict=True):
        found = jiwer.process_words(reference, transcript)
        errors = found.substitutions + found.deletions + found.insertions
        parts.append((errors, found.substitutions + found.deletions + found.hits))
    facts = {"library": f"jiwer {version('jiwer')}", "examples": len(parts), **detail}
    return from_scores(name, "lower", Scores(np.array(parts, np.float64)), seed, unit="errors/word", detail=facts)


def _mean(name: str, values: Sequence[float], seed: int, unit: str, detail: Mapping[str, Any]) -> Metric:
    found = np.array(values, dtype=np.float64)
    scores = Scores(np.stack([found, np.ones_like(found)], axis=1))
    return from_scores(name, "lower", scores, seed, unit=unit, detail={"examples": len(found), **detail})


def _detail(frames: Frames) -> dict[str, Any]:
    return {"library": f"librosa {version('librosa')}", **asdict(frames)}
