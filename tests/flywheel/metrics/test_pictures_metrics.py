"""Metrics of pictures that a recipe may name, on digits: generators that copy, that do not, and that draw noise."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flywheel import arguments
from flywheel.comparison import compare
from flywheel.errors import RecipeError
from flywheel.metrics import score_files
from flywheel.metrics.base import Exam
from flywheel.metrics.extractors import open_clip, open_extractor
from flywheel.metrics.image import Judge
from flywheel.metrics.pictures import agreement, nearest
from flywheel.metrics.table import METRICS
from flywheel.modalities.labelled_pictures import Painted, arrays
from flywheel.record import Record
from flywheel.runtimes.base import Sampling

Array = NDArray[Any]
DIGITS, SHAPE = tuple("0123456789"), (1, 8)
TRAIN, HELDOUT = 900, 300


@dataclass(frozen=True)
class Generator:
    """Draws one of some pictures with the label that is asked for, and changes it."""

    pictures: Array
    ids: Array
    change: Callable[[Array, np.random.Generator], Array] = lambda pictures, rng: pictures

    def forward(self, prompt: Any) -> Array:
        raise NotImplementedError

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> list[Array]:
        rng = np.random.default_rng(sampling.seed)
        places = [rng.choice(np.flatnonzero(self.ids == DIGITS.index(label))) for label in prompts]
        return list(self.change(self.pictures[places], rng).clip(0, 1).astype(np.float32))


@pytest.fixture(scope="module")
def rows() -> list[Record]:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))
    return [Record(f"r{i}", image=png(found.images[i] / 16), label=str(found.target[i])) for i in order]


def png(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def judge(rows: list[Record]) -> Judge:
    return Judge.fit(*arrays(rows[:TRAIN], DIGITS, SHAPE), seed=0)


@pytest.fixture
def exam(rows: list[Record], judge: Judge) -> Callable[..., Exam]:
    """An exam of a generator that knows the given rows."""

    def of(known: slice, change: Any = lambda pictures, rng: pictures, count: int = HELDOUT) -> Exam:
        generator = Generator(*arrays(rows[known], DIGITS, SHAPE), change)
        painter = Painted(generator, DIGITS, SHAPE, judge)
        heldout = rows[TRAIN : TRAIN + min(HELDOUT, count)]
        return Exam(heldout, rows[:TRAIN], count, Sampling(seed=3), seed=0, painter=painter)

    return of


COPIES, HONEST = slice(0, TRAIN), slice(TRAIN + HELDOUT, None)


def measure(name: str, exam: Exam, **given: Any) -> dict[str, Any]:
    """As evaluation does, after the check that a recipe gets."""
    function = METRICS[name].function(name)
    arguments.check("evaluate.metrics[0]", name, function, given)
    found = {metric.name: metric for metric in function(exam, **given)}
    for metric in found.values():
        assert any(metric.name == gives for gives in METRICS[name].gives)
        assert metric.low <= metric.value <= metric.high
    return found


def blurred(pictures: Array, rng: np.random.Generator) -> Array:
    return 0.6 * pictures + 0.2


def slightly_noisy(pictures: Array, rng: np.random.Generator) -> Array:
    return pictures + rng.normal(0, 0.01, pictures.shape)


def half_noise(pictures: Array, rng: np.random.Generator) -> Array:
    return np.where(np.arange(len(pictures))[:, None, None, None] % 2, rng.random(pictures.shape), pictures)


# ---------------------------------------------------------------- memorised pictures


@pytest.mark.parametrize("change", [lambda pictures, rng: pictures, slightly_noisy])
def test_a_generator_that_copies_training_pictures_is_caught(exam: Callable[..., Exam], change: Any) -> None:
    (metric,) = measure("memorisation", exam(COPIES, change)).values()
    assert metric.value > 0.99
    assert metric.better == "lower"
    worst = metric.detail["nearest"][0]
    assert worst["train"].startswith("r")
    assert worst["distance"] < metric.detail["limit"]


def test_a_generator_that_copies_half_of_the_time_is_caught(exam: Callable[..., Exam]) -> None:
    assert measure("memorisation", exam(COPIES, half_noise))["memorised_share"].value == pytest.approx(0.5, abs=0.02)


def test_a_generator_of_new_pictures_passes(exam: Callable[..., Exam]) -> None:
    for percentile in (1.0, 5):
        metric = measure("memorisation", exam(HONEST), percentile=percentile)["memorised_share"]
        assert metric.value < 3 * metric.detail["expected"]
        assert metric.detail["expected"] == pytest.approx(percentile / 100)


def test_the_pairs_name_the_copied_rows(exam: Callable[..., Exam], rows: list[Record]) -> None:
    seen = exam(COPIES)
    drawn = seen.painter.pictures(seen.heldout, seen.sampling)[0]  # type: ignore[union-attr]
    images = {row.id: row.image for row in rows}
    for pair in measure("memorisation", seen)["memorised_share"].detail["nearest"]:
        assert pair["distance"] == 0
        assert images[pair["train"]] == png(drawn[pair["picture"], 0])
        assert seen.heldout[pair["picture"]].id == pair["row"]


def test_nearest_goes_through_all_batches() -> None:
    rng = np.random.default_rng(0)
    rows, queries = rng.random((50, 4)), rng.random((20, 4))
    queries[3] = rows[31]
    places, apart = nearest(queries, (rows[i : i + 7] for i in range(0, 50, 7)))
    expected = np.linalg.norm(queries[:, None] - rows, axis=2)
    np.testing.assert_array_equal(places, expected.argmin(axis=1))
    np.testing.assert_allclose(apart, expected.min(axis=1))
    assert (places[3], apart[3]) == (31, 0)


# ---------------------------------------------------------------- distances


def test_the_rooms_own_classifier_tells_good_pictures_from_bad(exam: Callable[..., Exam]) -> None:
    good, bad = (
        {
            name: metric
            for kind in ("kernel_distance", "precision_recall", "classifier_score")
            for name, metric in measure(kind, exam(HONEST, change)).items()
        }
        for change in (lambda pictures, rng: pictures, blurred)
    )
    assert set(good) == {
        "classifier_kernel_distance", "classifier_score",
        *(f"classifier_{kind}" for kind in ("precision", "recall", "density", "coverage")),
    }  # fmt: skip
    for name, metric in good.items():
        assert (metric.value > bad[name].value) == (metric.better == "higher"), name
        assert metric.detail["extractor"] == "the model's own classifier"
        assert metric.detail["pictures"] == metric.detail["heldout_pictures"] == HELDOUT
    assert good["classifier_kernel_distance"].value < 0.1 * good["classifier_kernel_distance"].detail["noise"]
    assert 5 < good["classifier_score"].value <= 10


def test_a_better_challenger_is_found_on_the_same_examples(exam: Callable[..., Exam], tmp_path: Path) -> None:
    sides = []
    for name, change in (("good", slightly_noisy), ("bad", blurred)):
        seen = exam(HONEST, change, 120)
        metrics = [
            metric
            for kind in ("kernel_distance", "classifier_score", "precision_recall")
            for metric in measure(kind, seen).values()
        ]
        (tmp_path / name).mkdir()
        score_files.write(metrics, tmp_path / name)
        sides.append(score_files.read(tmp_path / name))
    for name in ("classifier_kernel_distance", "classifier_score", "classifier_recall"):
        better, scores = sides[0][name]
        assert compare(name, better, (scores, sides[1][name][1]), 0.01).p_better < 0.01


def test_pictures_are_drawn_once_for_several_metrics(exam: Callable[..., Exam]) -> None:
    seen = exam(HONEST, count=40)
    for name in ("kernel_distance", "memorisation", "classifier_score"):
        measure(name, seen)
    assert len(seen.painter.drawn) == 1  # type: ignore[union-attr]


def test_more_samples_than_rows_go_over_them_again(exam: Callable[..., Exam]) -> None:
    seen = replace(exam(HONEST, count=40), num_samples=100)
    metric = measure("kernel_distance", seen)["classifier_kernel_distance"]
    assert (metric.detail["pictures"], metric.detail["heldout_pictures"]) == (100, 40)


def test_too_few_pictures_for_their_neighbours(exam: Callable[..., Exam]) -> None:
    with pytest.raises(RecipeError, match="lower `neighbours`"):
        measure("precision_recall", exam(HONEST, count=5), neighbours=5)


def test_the_diffusion_room_sits_the_exam(rows: list[Record]) -> None:
    """An untrained UNet draws noise."""
    from flywheel.modalities.image_diffusion import ImageDiffusion
    from flywheel.recipe import Recipe

    recipe = Recipe.model_validate(
        {
            "name": "digits",
            "objective": {"metric": "label_accuracy"},
            "data": {"sources": [{"type": "sklearn"}]},
            "model": {"modality": "image_diffusion", "block_out_channels": (8, 16), "num_train_timesteps": 50},
        }
    )
    room = ImageDiffusion()
    model = room.build(recipe, rows[:200])
    painter = room.painter(model, room.predictor(model))
    exam = Exam(rows[200:220], rows[:200], 20, Sampling(num_inference_steps=2), seed=0, painter=painter)
    distance = measure("kernel_distance", exam)["classifier_kernel_distance"]
    assert distance.value > 10 * distance.detail["real"]
    assert measure("memorisation", exam)["memorised_share"].value == 0
    precision = measure("precision_recall", exam)["classifier_precision"]
    assert precision.value < 0.5 * precision.detail["real"]


# ---------------------------------------------------------------- networks that a recipe names


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks with random weights, laid out as snapshots of the hub."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        PreTrainedTokenizerFast,
        ResNetConfig,
        ResNetModel,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
        ViTModel,
    )  # fmt: skip

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("networks")
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    picture, side = {"image_size": 16, "patch_size": 8}, {"height": 16, "width": 16}
    convolutions = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    for name, module in (
        ("vit", ViTModel(ViTConfig(**layers, **picture))),
        ("classifier", ViTForImageClassification(ViTConfig(**layers, **picture, num_labels=5))),
        ("resnet", ResNetModel(ResNetConfig(**convolutions))),
    ):
        module.save_pretrained(root / name)
        ViTImageProcessor(size=side).save_pretrained(root / name)
    words = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "photo", "of", *DIGITS]
    text = {**layers, "vocab_size": len(words), "max_position_embeddings": 8}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    clip = CLIPConfig(text_config={**text, **ids}, vision_config={**layers, **picture}, projection_dim=8)
    CLIPModel(clip).save_pretrained(root / "clip")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side).save_pretrained(root / "clip")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    tokens = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(root / "clip")
    return root


@pytest.mark.parametrize("kind", ["vit", "clip", "resnet"])
def test_distances_by_a_named_extractor(exam: Callable[..., Exam], networks: Path, kind: str) -> None:
    extractor = str(networks / kind)
    good, bad = exam(HONEST, count=60), exam(HONEST, blurred, 60)
    for name in ("frechet_distance", "kernel_distance"):
        (one,), (other,) = (measure(name, seen, extractor=extractor).values() for seen in (good, bad))
        assert one.name == name
        assert one.detail["extractor"] == extractor
        assert one.value < other.value
        assert one.detail["real"] < one.detail["noise"]
        assert one.scores is not None
    assert set(measure("precision_recall", good, extractor=extractor)) == {"precision", "recall", "density", "coverage"}
    assert measure("memorisation", exam(COPIES, count=60), extractor=extractor)["memorised_share"].value > 0.9


def test_a_named_classifier(exam: Callable[..., Exam], networks: Path) -> None:
    metric = measure("classifier_score", exam(HONEST, count=20), classifier=str(networks / "classifier"))
    assert 1 <= metric["classifier_score"].value <= 5
    assert metric["classifier_score"].detail["extractor"] == str(networks / "classifier")


def test_features_do_not_depend_on_the_batch(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = np.random.default_rng(0).random((7, 3, 16, 16), dtype=np.float32)
    extractor = open_extractor(str(networks / "vit"))
    whole = extractor.features(pictures)
    monkeypatch.setattr("flywheel.metrics.extractors.BATCH", 3)
    np.testing.assert_allclose(extractor.features(pictures), whole, atol=1e-6)


def test_clip_score_is_the_cosine_that_the_model_itself_gives(exam: Callable[..., Exam], networks: Path) -> None:
    import torch
    from transformers import CLIPModel

    seen = exam(HONEST, count=12)
    metric = measure("clip_score", seen, extractor=str(networks / "clip"))["clip_score"]
    clip, model = open_clip(str(networks / "clip")), CLIPModel.from_pretrained(networks / "clip")
    drawn = seen.painter.pictures(seen.heldout, seen.sampling)[0]  # type: ignore[union-attr]
    texts = clip.tokenizer([f"a photo of a {row.label}" for row in seen.heldout], padding=True, return_tensors="pt")
    images = [Image.fromarray(np.round(picture[0] * 255).astype(np.uint8)).convert("RGB") for picture in drawn]
    pixels = clip.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        out = model(texts["input_ids"], pixels, texts["attention_mask"])
    expected = 100 * (out.image_embeds * out.text_embeds).sum(1).clamp(min=0).numpy()
    assert metric.value == pytest.approx(expected.mean(), abs=1e-4)
    assert metric.scores is not None
    np.testing.assert_allclose(metric.scores.parts[:, 0], expected, atol=1e-4)


def test_agreement_of_directions() -> None:
    pictures = np.array([[2.0, 0], [1, 1], [1, 0], [0, 0]])
    texts = np.array([[3.0, 0], [1, 0], [-1, 0], [1, 0]])
    np.testing.assert_allclose(agreement(pictures, texts), [100, 100 / 2**0.5, 0, 0])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("frechet_distance", {}, "no extractor"),
        ("clip_score", {"extractor": "x", "template": "a digit"}, "template"),
        ("memorisation", {"percentile": 100.0}, "less than 100"),
        ("precision_recall", {"neighbors": 3}, "did you mean neighbours"),
        ("precision_recall", {"neighbours": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        arguments.check("evaluate.metrics[0]", name, METRICS[name].function(name), given)


def test_a_checkpoint_that_is_none_is_refused(exam: Callable[..., Exam], networks: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"under `evaluate\.metrics`"):
        measure("kernel_distance", exam(HONEST, count=5), extractor=str(tmp_path))
    with pytest.raises(RecipeError, match="encodes pictures and texts"):
        measure("clip_score", exam(HONEST, count=5), extractor=str(networks / "vit"))
