from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from flywheel.errors import ArtifactError, RecipeError, SourceError
from flywheel.features import table
from flywheel.features.base import Sample, Vectors
from flywheel.features.extract import features, read_vectors
from flywheel.recipe_features import Features
from flywheel.record import Record, write_rows

TEXTS = [
    f"{subject} {verb} {thing}, and then {subject} {verb} again."
    for subject in ("The cat", "A dog", "Größe")
    for verb in ("eats", "sees", "likes")
    for thing in ("fish", "the house", "42 birds")
]


def config(type: str, **fields: Any) -> Features:
    found: Features = TypeAdapter(Features).validate_python({"type": type, **fields})
    return found


def rows(directory: Path, records: list[Record]) -> Path:
    directory.mkdir(exist_ok=True)
    write_rows(directory / "train.parquet", records[:-5])
    write_rows(directory / "heldout.parquet", records[-5:])
    return directory


def documents(texts: list[str] = TEXTS) -> list[Record]:
    return [Record(f"r{n}", text=text, label="a") for n, text in enumerate(texts)]


def made(directory: Path, settings: Features, records: list[Record]) -> Vectors:
    """Vectors of the held-out rows, which are equal when they are made again from the stored vectoriser."""
    (directory / "out").mkdir()
    found = features(settings, rows(directory / "rows", records), directory / "out")
    ids, vectors = read_vectors(directory / "out" / "heldout.parquet")
    assert ids == [record.id for record in records[-5:]]
    assert found["rows"] == {"train": len(records) - 5, "heldout": 5}
    assert vectors.shape == (5, found["width"])
    again = table.load(directory / "out" / "vectoriser")
    np.testing.assert_array_equal(again.transform(records[-5:]), vectors)
    assert not list((directory / "out").rglob("*.p*kl*"))
    return vectors


def png(seed: int, side: int = 20) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def wav(pitch: float, rate: int = 16_000, seconds: float = 0.25) -> bytes:
    file = io.BytesIO()
    soundfile.write(
        file, np.sin(np.arange(int(rate * seconds)) / rate * 2 * np.pi * pitch).astype(np.float32), rate, format="WAV"
    )
    return file.getvalue()


@pytest.mark.parametrize("lowercase", [True, False])
def test_counts_are_those_of_scikit_learn(tmp_path: Path, lowercase: bool) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    options: dict[str, Any] = {"max_features": 20, "min_df": 2, "ngram_range": (1, 2), "lowercase": lowercase}
    expected = CountVectorizer(**options).fit(TEXTS[:-5]).transform(TEXTS[-5:]).toarray()
    np.testing.assert_array_equal(made(tmp_path, config("bag_of_words", **options), documents()), expected)


@pytest.mark.parametrize("sublinear_tf", [True, False])
def test_weights_are_those_of_scikit_learn(tmp_path: Path, sublinear_tf: bool) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    expected = TfidfVectorizer(min_df=1, sublinear_tf=sublinear_tf).fit(TEXTS[:-5]).transform(TEXTS[-5:]).toarray()
    settings = config("tfidf", min_df=1, sublinear_tf=sublinear_tf)
    np.testing.assert_allclose(made(tmp_path, settings, documents()), expected, atol=1e-6)


def test_word_vectors_tell_topics_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    topics = [["bread", "butter", "jam", "toast"], ["rain", "snow", "wind", "storm"]]
    texts = [" ".join(rng.choice(topics[n % 2], 12)) for n in range(305)]
    settings = config("word2vec", vector_size=8, epochs=10, min_count=1)
    vectors = made(tmp_path, settings, documents(texts))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = vectors @ vectors.T
    assert similar[0, 2] > similar[0, 1] + 0.2


def made_files(directory: Path) -> dict[str, bytes]:
    files = sorted((directory / "out").rglob("*"))
    return {file.name: file.read_bytes() for file in files if file.is_file() and file.name != "train.parquet"}


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    for type in ("tfidf", "word2vec"):
        made_twice = []
        for name in ("a", "b"):
            (tmp_path / type / name).mkdir(parents=True)
            made(tmp_path / type / name, config(type), documents(TEXTS * 3))
            made_twice.append(made_files(tmp_path / type / name))
        assert made_twice[0] == made_twice[1]


def test_long_texts_are_learnt_to_their_end() -> None:
    settings = config("word2vec", vector_size=4, min_count=1, epochs=1)
    from flywheel.features import word2vec

    learnt = word2vec.fit(documents(["first " * 30_000 + "last one"]), settings)  # type: ignore[arg-type]
    assert np.abs(learnt.transform([Record("x", text="last")])).sum() > 0
    assert not learnt.transform([Record("x", text="unknown")]).any()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of our own, as training writes it."""
    from flywheel.modalities import decoder_model
    from flywheel.recipe_models import DecoderModel

    directory = tmp_path_factory.mktemp("decoder")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    small = DecoderModel.model_validate({**sizes, "num_key_value_heads": 1, "tokenizer": {"vocab_size": 300}})
    model = decoder_model.from_scratch(small, TEXTS, 0)
    model.module.save_pretrained(directory)
    model.processor.save_pretrained(directory)
    return directory


def test_embeddings_of_our_own_decoder(tmp_path: Path, decoder: Path) -> None:
    settings = config("embeddings", model=str(decoder), batch_size=3)
    vectors = made(tmp_path, settings, documents())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(np.unique(vectors.round(5), axis=0)) == 5


def test_an_embedding_does_not_depend_on_its_batch(decoder: Path) -> None:
    from flywheel.features import embeddings

    encoder = embeddings.fit([], config("embeddings", model=str(decoder), normalize=False))  # type: ignore[arg-type]
    together = encoder.transform([*documents(), Record("e", text="")])
    alone = np.concatenate([encoder.transform([row]) for row in documents()])
    np.testing.assert_allclose(together[:-1], alone, atol=1e-5)
    assert not together[-1].any()


def test_pixels(tmp_path: Path) -> None:
    records = [Record(f"r{n}", image=png(n)) for n in range(12)]
    vectors = made(tmp_path, config("image_pixels", size=20, mode="RGB"), records)
    assert 0 <= vectors.min() < 0.1
    np.testing.assert_allclose(vectors[0], np.asarray(Image.open(io.BytesIO(png(7)))).ravel() / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_embeddings_of_pictures(tmp_path: Path, kind: str) -> None:
    vectors = made(
        tmp_path,
        config("image_embeddings", model=str(vision(tmp_path / "vision", kind)), batch_size=2),
        [Record(f"r{n}", image=png(n)) for n in range(7)],
    )
    assert vectors.shape == (5, {"vit": 16, "clip": 8}[kind])
    assert len(np.unique(vectors.round(5), axis=0)) == 5


def vision(directory: Path, kind: str) -> Path:
    """A tiny vision model with random weights."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    picture = {"image_size": 16, "patch_size": 8}
    if kind == "vit":
        ViTModel(ViTConfig(**layers, **picture)).save_pretrained(directory)
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(directory)
    else:
        text = {**layers, "vocab_size": 50, "max_position_embeddings": 8}
        whole = CLIPConfig(text_config=text, vision_config={**layers, **picture}, projection_dim=8)
        CLIPModel(whole).save_pretrained(directory)
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(directory)
    return directory


def test_log_mel_is_that_of_librosa(tmp_path: Path) -> None:
    import librosa

    records = [Record(f"r{n}", audio=wav(200 + 100 * n)) for n in range(7)]
    settings = config("log_mel", n_mels=20, n_fft=400)
    vectors = made(tmp_path, settings, records)
    samples, _ = soundfile.read(io.BytesIO(wav(200)), dtype="float32")
    power = librosa.feature.melspectrogram(
        y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=20, center=False, power=2
    )
    from flywheel.features import sound

    bands = sound.fit([], settings).spectrogram(samples)  # type: ignore[arg-type]
    np.testing.assert_allclose(bands, librosa.power_to_db(power, amin=1e-10, top_db=None), atol=0.05)
    assert np.argmax(vectors[0][:20]) < np.argmax(vectors[4][:20])


def test_recordings_are_resampled() -> None:
    from flywheel.features import sound

    bands = sound.fit([], config("log_mel", n_mels=20))  # type: ignore[arg-type]
    low, high = bands.transform([Record("a", audio=wav(440, 16_000)), Record("b", audio=wav(440, 48_000))])
    assert np.argmax(low[:20]) == np.argmax(high[:20])
    assert np.isfinite(bands.transform([Record("short", audio=wav(440, seconds=0.001))])).all()


@pytest.mark.parametrize(
    ("type", "record", "message"),
    [
        ("image_pixels", Record("r1", text="x"), "no image"),
        ("image_pixels", Record("r1", image=b"broken", origin={"path": "a.png"}), r"r1 \(a.png\)"),
        ("log_mel", Record("r1", audio=b"broken"), "expect_audio_to_be_intact"),
        ("tfidf", Record("r1", text="only once"), "min_df"),
        ("word2vec", Record("r1", text="only once"), "min_count"),
    ],
)
def test_rows_that_give_no_features(tmp_path: Path, type: str, record: Record, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        features(config(type), rows(tmp_path / "rows", [record] * 6), tmp_path)


def test_wrong_settings_and_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="ngram_range"):
        config("tfidf", ngram_range=(2, 1))
    with pytest.raises(ValidationError):
        config("tfidf", vector_size=2)
    (tmp_path / "model").mkdir()
    with pytest.raises(RecipeError, match="correct `model` under `features`"):
        features(config("embeddings", model=str(tmp_path / "model")), rows(tmp_path / "rows", documents()), tmp_path)


def test_rows_in_several_files_and_rows_that_are_missing(tmp_path: Path) -> None:
    directory = rows(tmp_path / "rows", documents())
    (directory / "train").mkdir()
    (directory / "train.parquet").rename(directory / "train" / "00000.parquet")
    write_rows(directory / "train" / "00001.parquet", [Record("more", text="The cat")])
    assert features(config("tfidf"), directory, tmp_path)["rows"]["train"] == len(TEXTS) - 4
    (directory / "heldout.parquet").unlink()
    with pytest.raises(SourceError, match="no heldout rows"):
        features(config("tfidf"), directory, tmp_path / "again")


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(RecipeError, match=r"install -c constraints\.txt gensim"):
        features(config("word2vec"), rows(tmp_path / "rows", documents()), tmp_path)


def test_a_directory_without_a_vectoriser(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the features step again"):
        table.load(tmp_path)
    (tmp_path / "vectoriser.json").write_text(json.dumps({"type": "tfidf"}))
    with pytest.raises(ArtifactError, match=r"idf\.npy"):
        table.load(tmp_path)


def test_a_sample_is_drawn_by_ids(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(path, [Record(f"r{n}", text="x") for n in range(500)])
    drawn = [row.id for row in Sample(path, 100)]
    assert 70 < len(drawn) < 130
    assert drawn == [row.id for row in Sample(path, 100)]
    assert len(list(Sample(path, 500))) == 500


def test_a_server_needs_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    made(tmp_path, config("tfidf"), documents())
    program = (
        "import sys, pathlib; from flywheel.features import table; from flywheel.record import Record;"
        "assert table.load(pathlib.Path(sys.argv[1])).transform([Record('r', text='the cat')]).any();"
        "heavy = {'torch', 'sklearn', 'scipy', 'transformers', 'gensim', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "out" / "vectoriser")], check=True)
