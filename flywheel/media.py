"""Pictures and recordings: from encoded bytes to pixels and samples and back, with caps on what they unfold to.

Bytes may come from anywhere. What cannot be decoded raises `Undecodable`, whose `reason` is
what to quarantine the row for.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64 << 20
"""Pixels of a picture at most (8,192 x 8,192); Pillow holds up to four bytes for each."""
MAX_SAMPLES = 100_000_000
"""Frames x channels of a recording at most: 104 minutes of 16 kHz mono, 400 MB of float32."""

PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are decoded. Pillow knows many more, one of which runs another program (EPS)."""
_RECORDINGS = {b"RIFF": "WAV", b"RF64": "WAV", b"fLaC": "FLAC", b"OggS": "OGG", b"ID3": "MP3"}
_BLOCK = 1 << 16
_MP3_SHARE = 0.95
"""The header of an MP3 file, if it has one, tells its length about so well."""

Samples = NDArray[np.float32]
"""(frames, channels), within [-1, 1]."""


class Undecodable(Exception):
    """Bytes that are not a sound picture or recording."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, " ".join(detail.split())[:200]
        super().__init__(reason, self.detail)


# ---------------------------------------------------------------- pictures


def decode_image(data: bytes) -> Image:
    """The first frame, fully decoded and upright (EXIF orientation applied), in the mode of its file.

    Raises Undecodable: `bomb` above MAX_PIXELS, `corrupt_image` for what is truncated, damaged or not in PICTURES.
    """
    from PIL import Image, ImageOps

    with _blamed("corrupt_image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the size is judged here, and damaged metadata is no matter
        try:
            image = Image.open(io.BytesIO(data), formats=PICTURES)
        except Image.DecompressionBombError as error:
            raise Undecodable("bomb", str(error)) from error
        if image.width * image.height > MAX_PIXELS:
            raise Undecodable("bomb", f"{image.width} x {image.height} pixels")
        image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # Damaged EXIF data beside sound pixels: nothing is known about the orientation.
        return image


def encode_png(image: Image) -> bytes:
    """PNG of the pixels alone: no EXIF, text or colour profile. Equal pixels give equal bytes."""
    bare = image.copy()
    bare.info = {key: value for key, value in image.info.items() if key == "transparency"}
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG")
    return buffer.getvalue()


# ---------------------------------------------------------------- recordings


def check_audio(data: bytes) -> None:
    """Decode a recording block by block, in little memory. Raises Undecodable as `decode_audio` does."""
    with _opened(data) as file:
        for _ in _blocks(file):
            pass


def decode_audio(data: bytes) -> tuple[Samples, int]:
    """Samples of a WAV, FLAC, Ogg (Vorbis, Opus) or MP3 recording, (frames, channels), and its sampling rate in Hz.

    Raises Undecodable: `bomb` above MAX_SAMPLES; `corrupt_audio` for another format, no samples at all, numbers that
    are not finite, and truncated files. Not seen: the loss of the last twentieth of an MP3 file, or of any part of one
    whose header does not tell its length.
    """
    with _opened(data) as file:
        samples: Samples = np.concatenate(list(_blocks(file)))
        return samples, int(file.samplerate)


def encode_wav(samples: Samples, rate: int) -> bytes:
    """16-bit WAV of samples, (frames, channels) or (frames,); what exceeds [-1, 1] is clipped."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    import soundfile

    if not _is_recording(data):
        raise Undecodable("corrupt_audio", "not a WAV, FLAC, Ogg or MP3 file")
    with _blamed("corrupt_audio"), soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.frames * file.channels > MAX_SAMPLES:
            raise Undecodable("bomb", f"{file.frames} frames x {file.channels} channels")
        if _cut(data, file):
            raise Undecodable("corrupt_audio", "truncated")
        yield file


def _is_recording(data: bytes) -> bool:
    """By the first bytes, so that of libsndfile's many parsers only those of common formats meet foreign data."""
    mpeg = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    return mpeg or data[:4] in _RECORDINGS or data[:3] in _RECORDINGS


def _blocks(file: Any) -> Iterator[Samples]:
    """All samples in blocks, counted against the header and the cap."""
    frames = 0
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        frames += len(block)
        if frames * file.channels > MAX_SAMPLES:
            raise Undecodable("bomb", f"more than {MAX_SAMPLES} samples")
        if not np.isfinite(block).all():
            raise Undecodable("corrupt_audio", "samples that are not finite")
        yield block
    if not frames:
        raise Undecodable("corrupt_audio", "no samples")
    if frames < file.frames * (_MP3_SHARE if file.format == "MP3" else 1):
        raise Undecodable("corrupt_audio", f"{frames} of {file.frames} frames")


def _cut(data: bytes, file: Any) -> bool:
    """Whether a file is shorter than it says. libsndfile reads such a file to its end without a word.

    Writers that cannot seek leave 0xFFFFFFFF as the length of a WAV file.
    """
    if file.format == "OGG":
        return _ogg_cut(data)
    found = re.search(r"^(?:data|  Riff size) : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    return found is not None and int(found[2]) < int(found[1]) < 0xFFFFFFFE


def _ogg_cut(data: bytes) -> bool:
    """Whether the last page is not whole, or not marked as the end of the stream (RFC 3533, section 6)."""
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return not page[5] & 4 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


@contextmanager
def _blamed(reason: str) -> Iterator[None]:
    """Turn whatever a decoder raises on foreign bytes into Undecodable: there is no complete list of such errors."""
    try:
        yield
    except (Undecodable, PermissionError):
        raise
    except MemoryError as error:
        raise Undecodable("bomb", "more memory than allowed") from error
    except Exception as error:
        raise Undecodable(reason, f"{type(error).__name__}: {error}") from error
