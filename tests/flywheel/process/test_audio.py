import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flywheel.media import decode_audio, encode_wav
from flywheel.process.audio import audio_filter, audio_loudness, audio_resample, audio_trim, level
from flywheel.record import Quarantined, Record, provenance_id

RATE = 8_000
DIGITS = Path(os.environ.get("FLYWHEEL_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "spoken-digits"


def tone(seconds=1.0, frequency=440.0, amplitude=0.5, rate=RATE, channels=1):
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None].astype(np.float32), channels, axis=1)


def row(samples, rate=RATE):
    data = encode_wav(samples, rate)
    return Record(provenance_id("s", "p", data), audio=data, text="one", origin={"source": "s", "path": "p.wav"})


def one(outcomes):
    (found,) = outcomes
    return found


def heard(record):
    return decode_audio(record.audio)


def test_resampling_keeps_duration_and_pitch_and_mixes_channels():
    samples, rate = heard(one(audio_resample([row(tone(channels=2))], sampling_rate=16_000)))
    assert (samples.shape, rate) == ((16_000, 1), 16_000)
    assert np.abs(np.fft.rfft(samples[:, 0])).argmax() == 440
    stereo, _ = heard(one(audio_resample([row(tone(channels=2))], sampling_rate=16_000, mono=False)))
    assert stereo.shape == (16_000, 2)


def test_a_recording_that_fits_keeps_its_bytes():
    fitting = row(tone())
    assert one(audio_resample([fitting], sampling_rate=RATE)) is fitting
    assert one(audio_trim([fitting])) is fitting
    assert one(audio_filter([fitting])) is fitting


def test_silence_is_cut_off_both_ends():
    quiet = np.zeros((RATE, 1), np.float32)
    samples, _ = heard(one(audio_trim([row(np.concatenate([quiet, tone(), quiet]))], margin=0.1)))
    assert 1.2 <= len(samples) / RATE <= 1.3
    middle = len(samples) // 2
    assert level(samples[middle - 2_000 : middle + 2_000]) == pytest.approx(level(tone()), abs=0.1)
    assert one(audio_trim([row(quiet)])).reason == "silent"


@pytest.mark.parametrize(("measure", "target"), [("rms", -20.0), ("rms", -40.0), ("peak", -3.0)])
def test_loudness_meets_its_target(measure, target):
    samples, _ = heard(one(audio_loudness([row(tone(amplitude=0.05))], target, measure)))
    found = level(samples) if measure == "rms" else 20 * np.log10(np.abs(samples).max())
    assert found == pytest.approx(target, abs=0.05)


def test_loudness_never_clips():
    samples = tone(amplitude=0.01)
    samples[100] = 0.5
    louder, _ = heard(one(audio_loudness([row(samples)], target_db=-3.0)))
    assert 20 * np.log10(np.abs(louder).max()) == pytest.approx(-1.0, abs=0.01)
    assert one(audio_loudness([row(np.zeros((80, 1), np.float32))])).reason == "silent"


def test_recordings_of_no_use_are_left_out_with_the_reason():
    whole = row(tone())
    rows = [
        whole,
        row(tone(0.05)),
        row(tone(3)),
        row(tone(amplitude=0.0005)),
        whole.with_fields(audio=whole.audio[:-1_000]),
        Record("t", text="no recording"),
    ]
    found = list(audio_filter(rows, max_seconds=2))
    reasons = [getattr(r, "reason", "kept") for r in found]
    assert reasons == ["kept", "too_short", "too_long", "silent", "corrupt_audio", "kept"]
    assert isinstance(found[4], Quarantined)
    assert (found[4].path, found[4].detail) == ("p.wav", "truncated")


@pytest.mark.parametrize("operation", [audio_resample, audio_trim, audio_loudness])
def test_what_cannot_be_changed_is_quarantined(operation):
    broken, other = Record("a", audio=b"RIFF....WAVE"), Record("t", text="x")
    outcomes = list(operation([broken, other]))
    assert outcomes[0].reason == "corrupt_audio"
    assert outcomes[1] is other


@pytest.mark.skipif(not DIGITS.is_dir(), reason="the spoken digits are not here")
def test_real_speech_gets_shorter_and_even_in_level():
    paths = sorted(DIGITS.glob("*.wav"))[:40]
    rows = [Record(p.stem, audio=p.read_bytes()) for p in paths]
    done = list(audio_loudness(audio_trim(audio_resample(rows), top_db=25, margin=0.0), target_db=-25.0))
    assert all(isinstance(r, Record) for r in done)
    sounds = [heard(r) for r in done]
    before = sum(soundfile.info(io.BytesIO(r.audio)).duration for r in rows)
    assert 0.5 * before < sum(len(s) / rate for s, rate in sounds) < before
    assert {rate for _, rate in sounds} == {16_000}
    assert np.std([level(s) for s, _ in sounds]) < 1.0
