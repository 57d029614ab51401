"""Metrics of speech and sound, against librosa-based references that are written out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flywheel.errors import RecipeError
from flywheel.metrics.audio import (
    Frames,
    duration_error,
    log_spectral_distance,
    mel_cepstral_distance,
    mel_l1,
    open_recogniser,
    recognised_word_error_rate,
    spoken,
    word_error_rate,
)

librosa = pytest.importorskip("librosa")
Samples = NDArray[Any]
FRAMES = Frames(sample_rate=16_000, n_fft=512, hop_length=128, n_mels=40)


def vowel(pitch: float, seconds: float = 0.5, seed: int = 0, rate: int = 16_000) -> Samples:
    """A gliding tone with overtones and a little noise."""
    time = np.arange(int(rate * seconds)) / rate
    phase = 2 * np.pi * pitch * (time + 0.2 * time**2 / seconds)
    tone = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (0.2 * tone + np.random.default_rng(seed).normal(0, 0.005, len(time))).astype(np.float32)


REFERENCES = [vowel(120), vowel(180, 0.6)]
GENERATED = [vowel(130, seed=1), vowel(170, 0.7, seed=2)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_log_spectral_distance_is_that_of_its_formula() -> None:
    expected = []
    for one, other in zip(REFERENCES, GENERATED, strict=True):
        a, b = (
            10 * np.log10(np.maximum(np.abs(librosa.stft(x, n_fft=512, hop_length=128)) ** 2, 1e-10))
            for x in (one, other)
        )
        frames = min(a.shape[1], b.shape[1])
        expected.append(float(np.sqrt(((a[:, :frames] - b[:, :frames]) ** 2).mean(axis=0)).mean()))
    found = log_spectral_distance(REFERENCES, GENERATED, FRAMES)
    assert found.value == pytest.approx(mean(expected), rel=1e-4)
    assert found.low <= found.value <= found.high


def test_mel_l1_is_that_of_its_formula() -> None:
    expected = []
    for one, other in zip(REFERENCES, GENERATED, strict=True):
        filters = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=40)
        a, b = (
            np.log(np.maximum(filters @ np.abs(librosa.stft(x, n_fft=512, hop_length=128)), 1e-5)) for x in (one, other)
        )
        frames = min(a.shape[1], b.shape[1])
        expected.append(float(np.abs(a[:, :frames] - b[:, :frames]).mean()))
    assert mel_l1(REFERENCES, GENERATED, FRAMES).value == pytest.approx(mean(expected), rel=1e-4)


def test_mel_cepstral_distance_is_that_of_its_formula() -> None:
    """10 / ln 10 * sqrt(2 * sum of squares), with ln of the amplitude = sum of c_m cos(pi m (k + 1/2) / K)."""
    expected = []
    for one, other in zip(REFERENCES, GENERATED, strict=True):
        cepstra = []
        for x in (one, other):
            power = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=40) @ (
                np.abs(librosa.stft(x, n_fft=512, hop_length=128)) ** 2
            )
            amplitude = 0.5 * np.log(np.maximum(power, 1e-10))
            waves = np.cos(np.pi * np.outer(np.arange(1, 14), np.arange(40) + 0.5) / 40)
            cepstra.append(2 / 40 * waves @ amplitude)
        frames = min(c.shape[1] for c in cepstra)
        apart = ((cepstra[0][:, :frames] - cepstra[1][:, :frames]) ** 2).sum(axis=0)
        expected.append(float((10 / np.log(10) * np.sqrt(2 * apart)).mean()))
    found = mel_cepstral_distance(REFERENCES, GENERATED, FRAMES, align=False)
    assert found.value == pytest.approx(mean(expected), rel=1e-4)
    assert found.unit == "dB"


def test_alignment_forgives_speaking_slower() -> None:
    slow = [np.concatenate([np.zeros(4_000, np.float32), x]) for x in REFERENCES]
    straight = mel_cepstral_distance(REFERENCES, slow, FRAMES, align=False)
    warped = mel_cepstral_distance(REFERENCES, slow, FRAMES)
    assert warped.value < 0.6 * straight.value
    assert warped.detail["align"]


@pytest.mark.parametrize("measure", [mel_cepstral_distance, log_spectral_distance, mel_l1])
def test_a_recording_is_like_itself_and_least_like_noise(measure: Any) -> None:
    noise = [np.random.default_rng(0).normal(0, 0.1, len(x)).astype(np.float32) for x in REFERENCES]
    same, near, far = (measure(REFERENCES, other, FRAMES).value for other in (REFERENCES, GENERATED, noise))
    assert same == pytest.approx(0, abs=1e-6)
    assert same < near < far


def test_distances_of_silence_are_finite() -> None:
    silence = [np.zeros(4_000, np.float32)]
    for measure in (mel_cepstral_distance, log_spectral_distance, mel_l1):
        assert np.isfinite(measure(silence, [vowel(100)], FRAMES).value)


def test_duration_error_in_seconds() -> None:
    found = duration_error([np.zeros(16_000), np.zeros(8_000)], [np.zeros(12_000), np.zeros(16_000)], 16_000)
    assert found.value == pytest.approx((0.25 + 0.5) / 2)
    assert (found.unit, found.better) == ("s", "lower")


SAID = ["the cat sat on the mat", "hello world", "one two three"]
HEARD = ["the cat sat on mat", "hello there big world", "one two three"]


def test_word_error_rate_is_that_of_jiwer_and_torchmetrics() -> None:
    import jiwer

    found = word_error_rate(SAID, HEARD)
    assert found.value == pytest.approx(jiwer.wer(SAID, HEARD), abs=1e-12)
    assert found.value == pytest.approx(3 / 11)
    text = pytest.importorskip("torchmetrics.functional.text")
    assert found.value == pytest.approx(float(text.word_error_rate(HEARD, SAID)), abs=1e-6)
    assert found.scores is not None
    assert found.scores.parts.tolist() == [[1, 6], [2, 2], [0, 3]]


def test_words_that_were_never_said_count_too() -> None:
    assert word_error_rate(["a b"] * 20 + [""], ["a b"] * 20 + ["c"]).value == pytest.approx(1 / 40)
    assert word_error_rate(["a b"], [""]).value == 1


def test_spoken_words() -> None:
    assert spoken("Don\u2019t  STOP,\nGröße: 42!") == "don't stop grösse 42"


def test_a_function_as_recogniser() -> None:
    words = iter(["THE CAT, sat on the mat.", "hello"])
    found = recognised_word_error_rate(SAID[:2], REFERENCES, 16_000, lambda samples, rate: next(words))
    assert found.value == pytest.approx(1 / 8)


LAYERS = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CONVOLUTIONS = {
    "conv_dim": (16, 16),
    "conv_stride": (10, 8),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def ctc(directory: Path) -> None:
    """A tiny CTC recogniser that hears the same letter everywhere, laid out as a snapshot of the hub."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )  # fmt: skip

    torch.manual_seed(0)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABC"]
    (directory / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(directory / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(sampling_rate=8_000), tokenizer).save_pretrained(directory)
    config = Wav2Vec2Config(**LAYERS, **CONVOLUTIONS, vocab_size=len(letters), pad_token_id=0)
    model = Wav2Vec2ForCTC(config)
    model.lm_head.bias.data[5] = 9.0
    model.save_pretrained(directory)


def sequence_to_sequence(directory: Path) -> None:
    """A tiny recogniser with a decoder, which says the same few words whatever it hears."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import (
        BertConfig,
        PreTrainedTokenizerFast,
        SpeechEncoderDecoderConfig,
        SpeechEncoderDecoderModel,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
    )

    torch.manual_seed(0)
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "a", "b", "c"])}
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=plain, **tokens).save_pretrained(directory)
    Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(directory)
    decoder = BertConfig(**LAYERS, vocab_size=len(words), max_position_embeddings=32)
    encoder = Wav2Vec2Config(**LAYERS, **CONVOLUTIONS)
    model = SpeechEncoderDecoderModel(SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    model.decoder.cls.predictions.decoder.bias.data[3] = 9.0
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 1, 0, 2
    model.generation_config.max_length = 4
    model.save_pretrained(directory)


@pytest.mark.parametrize("kind", [ctc, sequence_to_sequence])
def test_a_checkpoint_as_recogniser(tmp_path: Path, kind: Any) -> None:
    kind(tmp_path)
    hears = open_recogniser(str(tmp_path))
    heard = [spoken(hears(samples, 16_000)) for samples in REFERENCES]
    assert all(heard)
    found = recognised_word_error_rate(heard, REFERENCES, 16_000, str(tmp_path))
    assert found.value == 0
    assert found.detail["recogniser"] == str(tmp_path)


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="recogniser"):
        open_recogniser(str(tmp_path))
