import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flywheel import media
from flywheel.media import Undecodable, check_audio, decode_audio, decode_image, encode_png, encode_wav

RATE = 16_000
NOISE = (np.random.default_rng(0).normal(size=(2 * RATE, 1)) * 0.1).astype(np.float32)


def picture(format, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def recording(format, subtype=None, samples=NOISE):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=format, subtype=subtype)
    return buffer.getvalue()


PICTURES = {format: picture(format) for format in media.PICTURES}
RECORDINGS = {
    "WAV": recording("WAV"),
    "float": recording("WAV", "FLOAT"),
    "RF64": recording("RF64"),
    "FLAC": recording("FLAC"),
    "Vorbis": recording("OGG", "VORBIS"),
    "Opus": recording("OGG", "OPUS"),
    "MP3": recording("MP3"),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_pictures_of_every_format_are_read_and_truncated_ones_refused(data):
    assert decode_image(data).size == (60, 40)
    for length in (0, 10, len(data) // 2):
        with pytest.raises(Undecodable) as refused:
            decode_image(data[:length])
        assert refused.value.reason == "corrupt_image"


@pytest.mark.parametrize("data", RECORDINGS.values(), ids=RECORDINGS)
def test_recordings_of_every_format_are_read_and_truncated_ones_refused(data):
    samples, rate = decode_audio(data)
    assert (samples.shape, samples.dtype, rate) == ((2 * RATE, 1), np.float32, RATE)
    check_audio(data)
    for length in (0, 10, len(data) // 2, int(len(data) * 0.9)):
        with pytest.raises(Undecodable) as refused:
            check_audio(data[:length])
        assert refused.value.reason == "corrupt_audio"


def test_a_wav_file_from_a_pipe_has_no_length_and_is_read():
    data = bytearray(RECORDINGS["WAV"])
    data[4:8] = data[40:44] = b"\xff" * 4
    assert len(decode_audio(bytes(data))[0]) == len(NOISE)


def test_an_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_image(picture("JPEG", exif=exif)).size == (40, 60)


def test_pictures_that_unfold_too_far_are_bombs(monkeypatch):
    ihdr = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = bytearray(picture("PNG"))
    bomb[16:29] = ihdr
    bomb[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + ihdr))
    monkeypatch.setattr(media, "MAX_PIXELS", 60 * 40 - 1)
    for data in (bytes(bomb), picture("PNG")):
        with pytest.raises(Undecodable) as refused:
            decode_image(data)
        assert refused.value.reason == "bomb"


def test_recordings_that_unfold_too_far_are_bombs():
    bomb = bytearray(RECORDINGS["FLAC"])
    bomb[21] |= 0x0F  # the upper bits of STREAMINFO's number of samples
    with pytest.raises(Undecodable) as refused:
        check_audio(bytes(bomb))
    assert refused.value.reason == "bomb"


def test_samples_that_are_not_finite_are_refused():
    with pytest.raises(Undecodable, match="corrupt_audio"):
        check_audio(recording("WAV", "FLOAT", np.array([0.1, np.nan, 0.2], np.float32)))


def test_formats_that_run_programs_are_not_even_tried():
    with pytest.raises(Undecodable):
        decode_image(picture("EPS"))
    with pytest.raises(Undecodable, match="not a WAV"):
        decode_audio(recording("AU"))


def test_encoding_again_gives_the_same_bytes_without_metadata():
    exif = Image.Exif()
    exif[0x010E] = "who and where"
    png = encode_png(decode_image(picture("PNG", exif=exif)))
    assert b"who" not in png
    assert encode_png(decode_image(png)) == png
    wav = encode_wav(NOISE, RATE)
    assert encode_wav(*decode_audio(wav)) == wav


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(data):
    whole = data.draw(st.sampled_from([*PICTURES.values(), *RECORDINGS.values()]))
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(broken) - 1)), max_size=5)):
        if broken:
            broken[place] ^= data.draw(st.integers(1, 255))
    for check in (decode_image, check_audio):
        with suppress(Undecodable):
            check(bytes(broken))
