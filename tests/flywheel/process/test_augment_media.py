import io

import numpy as np
import pytest
from PIL import Image

from flywheel.media import decode_audio, encode_wav
from flywheel.process.audio import level
from flywheel.process.augment_media import (
    add_noise,
    change_pitch,
    change_speed,
    horizontal_flip,
    random_brightness,
    random_crop,
    random_rotate,
)
from flywheel.record import Record, provenance_id

RATE = 8_000
PICTURES = [random_rotate, random_brightness, random_crop]
RECORDINGS = [add_noise, change_speed, change_pitch]


def picture(seed=0):
    pixels = np.random.default_rng(seed).integers(60, 160, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    return Record(provenance_id("s", "p", data), image=data, label="cat", origin={"group": "g", "source": "s"})


def recording(frequency=440.0):
    samples = 0.3 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)[:, None].astype(np.float32)
    data = encode_wav(samples, RATE)
    return Record(provenance_id("s", "p", data), audio=data, text="la", origin={"group": "g", "source": "s"})


def pixels(row):
    return np.asarray(Image.open(io.BytesIO(row.image))).astype(int)


def loudest(row):
    samples, rate = decode_audio(row.audio)
    return np.abs(np.fft.rfft(samples[:, 0], 4 * rate)).argmax() / 4


@pytest.mark.parametrize("operation", PICTURES + RECORDINGS)
def test_copies_depend_on_their_row_and_the_seed_alone(operation):
    rows = [picture(0), picture(1), recording(300), recording(500)]
    together = list(operation(rows, copies=2, seed=3))
    apart = [copy for one in reversed(rows) for copy in operation([one], copies=2, seed=3)]
    assert len(together) == 4
    assert sorted(together, key=lambda r: r.id) == sorted(apart, key=lambda r: r.id)
    assert together != list(operation(rows, copies=2, seed=4))
    assert len({copy.id for copy in together}) == 4


@pytest.mark.parametrize("operation", [*PICTURES, *RECORDINGS, horizontal_flip])
def test_copies_name_their_parent_and_keep_label_text_and_group(operation):
    for parent in (picture(), recording()):
        for copy in operation([parent]):
            assert copy.origin == {**parent.origin, "augmented": operation.__name__, "parent": parent.id}
            assert (copy.label, copy.text) == (parent.label, parent.text)


@pytest.mark.parametrize("operation", [*PICTURES, *RECORDINGS, horizontal_flip])
def test_what_has_no_picture_or_recording_gives_no_copies(operation):
    rows = [Record("a", text="x"), Record("b", image=b"\x89PNG"), Record("c", audio=b"RIFF")]
    assert list(operation(rows)) == []


@pytest.mark.parametrize("operation", PICTURES)
def test_pictures_keep_size_and_mode(operation):
    found = list(operation([picture()], copies=3))
    assert found
    assert {pixels(copy).shape for copy in found} == {(24, 32, 3)}


def test_a_flip_mirrors_and_leaves_symmetric_pictures_alone():
    (copy,) = horizontal_flip([picture()])
    np.testing.assert_array_equal(pixels(copy), pixels(picture())[:, ::-1])
    buffer = io.BytesIO()
    Image.new("L", (9, 9), 7).save(buffer, "PNG")
    assert list(horizontal_flip([Record("a", image=buffer.getvalue())])) == []
    rows = [picture(seed) for seed in range(60)]
    assert 15 < len(list(horizontal_flip(rows, probability=0.5))) < 45


def test_brightness_multiplies():
    (copy,) = random_brightness([picture()], change=0.3, seed=1)
    factors = pixels(copy) / pixels(picture())
    assert factors.std() < 0.01
    assert 0.7 <= factors.mean() <= 1.3


def test_noise_has_its_ratio():
    parent = recording()
    (copy,) = add_noise([parent], min_snr_db=20, max_snr_db=20)
    clean, noisy = decode_audio(parent.audio)[0], decode_audio(copy.audio)[0]
    assert level(clean) - level(noisy - clean) == pytest.approx(20, abs=0.3)


def test_speed_changes_duration_and_pitch_together():
    for copy in change_speed([recording()], change=0.2, copies=3):
        length = len(decode_audio(copy.audio)[0])
        assert 0.8 <= RATE / length <= 1.25
        assert loudest(copy) == pytest.approx(440 * RATE / length, rel=0.01)


def test_pitch_changes_and_duration_stays():
    heard = [loudest(copy) for copy in change_pitch([recording()], semitones=4, copies=3)]
    assert all(440 * 2 ** (-4.2 / 12) < f < 440 * 2 ** (4.2 / 12) for f in heard)
    assert len(set(heard)) == 3
    (copy,) = change_pitch([recording()])
    assert len(decode_audio(copy.audio)[0]) == RATE
