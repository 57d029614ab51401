"""Hostile pictures and recordings."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from tests.hostile.cases import MARK, Case, case, deflated, made

# ---------------------------------------------------------------- pictures


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 1, height: int = 1, *chunks: bytes, pixels: bytes | None = None, mode: int = 0) -> bytes:
    """A PNG file whose header may lie."""
    data = zlib.compress(b"\0" * ((width + 1) * height)) if pixels is None else pixels
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def picture(form: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(out, format=form)
    return out.getvalue()


def _gif_frames(count: int) -> bytes:
    frame = b"\x21\xf9\x04\0\0\0\0\0\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * count + b";"


def _gif_large() -> bytes:
    return b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0\xff\xff\xff\xff\0\2\2\x44\1\0;"


def _jpeg_large() -> bytes:
    data = picture("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + b"\xff\xdc\xff\xdc" + data[at + 4 :]


def _bmp(width: int, height: int, bits: int = 24, offset: int = 54) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0xFFFFFFFF, 0, 0, offset) + head + b"\0" * 99


def _tiff(*tags: tuple[int, int, int, int], after: int = 0) -> bytes:
    """A TIFF file of one directory: tag, type, count and value; `after` is where the next directory would be."""
    rows = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + struct.pack("<I", after) + b"\0" * 99


_TIFF = (
    (256, 4, 1, 9),
    (257, 4, 1, 9),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 8),
    (279, 4, 1, 81),
)


def _riff(kind: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + kind + body


def _images(name: str, make: Callable[[], bytes] | bytes, *outcomes: str, large: bool = False) -> Case:
    content = given if isinstance(given := make, bytes) else made(make)
    return case(name, content, *outcomes, source="imagefolder", large=large)


_ZTXT = b"zTXt", b"Comment\0\0\x78\xda"

IMAGES: dict[str, Case] = {
    "png_header_lies": _images("a.png", lambda: png(100_000, 100_000, pixels=zlib.compress(b"\0" * 99)), "bomb"),
    "png_header_overflow": _images("a.png", lambda: png(0x7FFFFFFF, 0x7FFFFFFF, pixels=b""), "bomb", "corrupt_image"),
    "png_zero": _images("a.png", lambda: png(0, 0, pixels=b""), "corrupt_image"),
    "png_bomb": _images("a.png", lambda: png(30_000, 30_000, pixels=b"\x78\xda" + deflated(900 << 20)), "bomb"),
    "png_bomb_thin": _images("a.png", lambda: png(1, 900_000_000, pixels=b"\x78\xda" + deflated(900 << 20)), "bomb"),
    "png_largest_allowed": _images("a.png", lambda: png(8_192, 8_192, pixels=b"\x78\xda" + deflated(65 << 20)), "kept",
                                   "corrupt_image"),
    "png_more_pixels": _images("a.png", lambda: png(9, 9, pixels=b"\x78\xda" + deflated(1 << 30)), "kept",
                               "corrupt_image", "bomb"),
    "png_text_bomb": _images("a.png", lambda: png(9, 9, *[_chunk(_ZTXT[0], _ZTXT[1] + deflated(1 << 30))]),
                             "corrupt_image", "bomb", "kept"),
    "png_text_bombs": _images("a.png", lambda: png(9, 9, *[_chunk(_ZTXT[0], _ZTXT[1] + deflated(1 << 20))] * 500),
                              "corrupt_image", "bomb", "kept"),
    "png_profile_bomb": _images("a.png", lambda: png(9, 9, _chunk(b"iCCP", b"p\0\0\x78\xda" + deflated(1 << 30))),
                                "corrupt_image", "bomb", "kept"),
    "png_chunks": _images("a.png", lambda: png(9, 9, _chunk(b"abCd", b"") * 200_000), "kept"),
    "png_chunk_length": _images("a.png", lambda: png(9, 9)[:33] + b"\xff\xff\xff\xffIDAT", "corrupt_image"),
    "png_frames": _images("a.png", lambda: png(9, 9, _chunk(b"acTL", struct.pack(">II", 0xFFFFFFFF, 0))), "kept",
                          "corrupt_image"),
    "gif_frames": _images("a.gif", lambda: _gif_frames(50_000), "kept"),
    "gif_large": _images("a.gif", _gif_large, "bomb"),
    "jpeg_large": _images("a.jpg", _jpeg_large, "bomb"),
    "jpeg_segments": _images("a.jpg", lambda: picture("JPEG")[:2] + b"\xff\xe1\xff\xff" + b"x" * 65_533
                             + picture("JPEG")[2:], "kept", "corrupt_image"),
    "bmp_large": _images("a.bmp", _bmp(60_000, 60_000), "bomb"),
    "bmp_negative": _images("a.bmp", _bmp(-1, -0x80000000), "corrupt_image", "bomb"),
    "bmp_offset": _images("a.bmp", _bmp(9, 9, offset=0xFFFFFFFF), "corrupt_image"),
    "tiff_large": _images("a.tif", _tiff(*_TIFF[2:], (256, 4, 1, 60_000), (257, 4, 1, 60_000)), "bomb"),
    "tiff_loop": _images("a.tif", _tiff(*_TIFF, after=8), "kept", "corrupt_image"),
    "tiff_counts": _images("a.tif", _tiff(*_TIFF[:5], (273, 4, 0xFFFFFFFF, 8), (279, 4, 0xFFFFFFFF, 8)),
        "corrupt_image",
                           "kept", "bomb"),
    "tiff_tags": _images("a.tif", _tiff(*_TIFF, *[(n, 2, 0x0FFFFFFF, 8) for n in range(40_000, 60_000)]), "kept",
                         "corrupt_image", "bomb"),
    "webp_lies": _images("a.webp", _riff(b"WEBP", (b"VP8X", b"\x02\0\0\0" + b"\xff" * 6)), "bomb", "corrupt_image"),
    "svg_as_png": _images("a.png",
        f'<svg xmlns="http://www.w3.org/2000/svg"><image href="@URL@/{MARK}"/></svg>'.encode(),
                          "corrupt_image"),
    "eps_as_png": _images("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (w) file\n",
                          "corrupt_image"),
    "zip_as_png": _images("a.png", b"PK\3\4" + b"\0" * 99, "corrupt_image"),
    "image_empty": _images("a.png", b"", "corrupt_image"),
}  # fmt: skip

# ---------------------------------------------------------------- recordings


def wav(data: bytes = b"\1\0" * 800, channels: int = 1, rate: int = 8_000, bits: int = 16, form: int = 1) -> bytes:
    align = (channels * bits // 8) & 0xFFFF
    head = struct.pack("<HHIIHH", form, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits)
    return _riff(b"WAVE", (b"fmt ", head), (b"data", data))


def _claims(size: int, riff: int | None = None) -> bytes:
    """A WAV file that says it has this many bytes of samples."""
    data = wav()
    at = data.index(b"data") + 4
    start = data[:4] + struct.pack("<I", size if riff is None else riff) + data[8:at]
    return start + struct.pack("<I", size) + data[at + 4 :]


def recording(form: str) -> bytes:
    import numpy as np
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.sin(np.arange(8_000) / 9.0) / 2, 8_000, format=form)
    return out.getvalue()


def _flac_lies() -> bytes:
    """A FLAC file that says it has 2^36 - 1 samples."""
    data = bytearray(recording("FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    return bytes(data)


def _rf64() -> bytes:
    about = struct.pack("<QQQI", 1 << 63, 1 << 63, 1 << 62, 0)
    body = b"WAVEds64" + struct.pack("<I", len(about)) + about + wav()[12:]
    return b"RF64\xff\xff\xff\xff" + body.replace(b"data" + struct.pack("<I", 1_600), b"data\xff\xff\xff\xff")


def _sounds(name: str, make: Callable[[], bytes] | bytes, *outcomes: str, large: bool = False) -> Case:
    content = given if isinstance(given := make, bytes) else made(make)
    return case(name, content, *outcomes, source="audiofolder", large=large)


SOUNDS: dict[str, Case] = {
    "wav_claims_4_gb": _sounds("a.wav", _claims(0xFFFFFFF0), "corrupt_audio", "bomb"),
    "wav_claims_unknown": _sounds("a.wav", _claims(0xFFFFFFFF), "kept", "corrupt_audio", "bomb"),
    "wav_claims_half": _sounds("a.wav", _claims(0x7FFFFFFF, 0), "corrupt_audio", "bomb"),
    "wav_claims_nothing": _sounds("a.wav", _claims(0), "corrupt_audio", "kept"),
    "wav_channels": _sounds("a.wav", wav(channels=65_535, bits=8), "corrupt_audio", "bomb", "kept"),
    "wav_no_channels": _sounds("a.wav", wav(channels=0), "corrupt_audio"),
    "wav_no_rate": _sounds("a.wav", wav(rate=0), "corrupt_audio", "kept"),
    "wav_rate": _sounds("a.wav", wav(rate=0xFFFFFFFF), "corrupt_audio", "kept"),
    "wav_no_bits": _sounds("a.wav", wav(bits=0), "corrupt_audio"),
    "wav_bits": _sounds("a.wav", wav(bits=65_535), "corrupt_audio"),
    "wav_form": _sounds("a.wav", wav(form=0xFFFE), "corrupt_audio", "kept"),
    "wav_adpcm": _sounds("a.wav", wav(form=2, bits=4), "corrupt_audio", "kept"),
    "wav_not_finite": _sounds("a.wav", wav(struct.pack("<3f", float("nan"), float("inf"), 1e38), form=3, bits=32),
                              "corrupt_audio"),
    "wav_chunks": _sounds("a.wav", lambda: _riff(b"WAVE", *[(b"LIST", b"INFO")] * 100_000), "corrupt_audio"),
    "wav_bomb": _sounds("a.wav", lambda: wav(b"\0" * (1 << 20), channels=1, bits=8) + b"\0" * (9 << 20), "kept",
                        "corrupt_audio", "bomb"),
    "wav_100_mb": _sounds("a.wav", lambda: wav(b"\0" * (150 << 20), bits=8), "bomb", large=True),
    "rf64_claims": _sounds("a.wav", _rf64, "corrupt_audio", "bomb", "kept"),
    "flac_claims": _sounds("a.flac", _flac_lies, "bomb", "corrupt_audio"),
    "flac_bomb": _sounds("a.flac", lambda: _silent(120_000_000), "bomb", large=True),
    "mp3_tag": _sounds("a.mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + b"\0" * 99, "corrupt_audio"),
    "mp3_frames": _sounds("a.mp3", b"\xff\xfb\x90\0" * 100_000, "corrupt_audio", "kept"),
    "ogg_header": _sounds("a.ogg", b"OggS" + b"\xff" * 999, "corrupt_audio"),
    "html_as_wav": _sounds("a.wav", f"<html>{MARK}".encode(), "corrupt_audio"),
    "audio_empty": _sounds("a.wav", b"", "corrupt_audio"),
}  # fmt: skip


def _silent(samples: int) -> bytes:
    import numpy as np
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8_000, 1, format="FLAC") as file:
        for _ in range(samples >> 20):
            file.write(np.zeros(1 << 20, np.int16))
    return out.getvalue()


MEDIA = {**IMAGES, **SOUNDS}
