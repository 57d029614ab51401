"""The diffusion room: what it builds, saves, learns, draws and exports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flywheel.errors import TrainingError
from flywheel.export import export
from flywheel.modalities.base import Model
from flywheel.modalities.image_diffusion import ImageDiffusion
from flywheel.recipe import Evaluate, Generation, Recipe
from flywheel.record import Record, write_rows
from flywheel.runtimes.base import Sampling
from flywheel.runtimes.bundle import open_bundle
from flywheel.runtimes.diffusion import png

ROOM = ImageDiffusion()


def recipe(**model: Any) -> Recipe:
    sizes = {"block_out_channels": (8, 16), "num_train_timesteps": 50, **model}
    return Recipe.model_validate(
        {
            "name": "bars",
            "objective": {"metric": "label_accuracy"},
            "data": {"sources": [{"type": "sklearn"}]},
            "model": {"modality": "image_diffusion", **sizes},
            "evaluate": {"num_samples": 8},
            "optimize": {"precisions": ["fp32"]},
        }
    )


def bars(count: int, seed: int = 0) -> list[Record]:
    """Grey pictures with a bright upper half (`up`) or lower half (`down`)."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        picture = rng.random((1, 8, 8)) * 0.3
        picture[:, slice(0, 4) if i % 2 else slice(4, 8)] += 0.7
        rows.append(Record(id=str(i), image=png(picture), label="up" if i % 2 else "down"))
    return rows


def trained(rows: Sequence[Record], steps: int = 30, **sizes: Any) -> Model:
    model = ROOM.build(recipe(**sizes), rows)
    features = ROOM.encode(model, rows, 0)
    batch = ROOM.collate([features[i] for i in range(len(rows))])
    optimizer = torch.optim.AdamW(model.module.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(steps):
        loss: Any = ROOM.losses(model.module, batch)[""]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.module.eval()
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return trained(bars(32))


def test_features_are_pixels_from_minus_one_to_one() -> None:
    rows = bars(8)
    features = ROOM.encode(ROOM.build(recipe(), rows), rows, 0)
    batch = ROOM.collate([features[i] for i in range(8)])
    assert batch["pixel_values"].shape == (8, 1, 8, 8)
    assert -1 <= batch["pixel_values"].min() < 0 < batch["pixel_values"].max() <= 1
    assert batch["class_labels"].tolist() == [0, 1] * 4


def test_loss_depends_on_the_global_seed_alone(model: Model) -> None:
    features = ROOM.encode(model, bars(8), 0)
    batch = ROOM.collate([features[i] for i in range(8)])
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(ROOM.losses(model.module, batch)[""].item())
    assert losses[0] == losses[1] != losses[2]


def test_building_leaves_the_global_seed_alone_and_repeats() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (ROOM.build(recipe(), bars(8)).module.state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_training_lowers_the_loss(model: Model) -> None:
    rows = bars(32)
    features = ROOM.encode(model, rows, 0)
    batch = ROOM.collate([features[i] for i in range(32)])
    untrained = ROOM.build(recipe(), rows)
    torch.manual_seed(3)
    before = ROOM.losses(untrained.module, batch)[""].item()
    torch.manual_seed(3)
    assert ROOM.losses(model.module, batch)[""].item() < 0.8 * before


def test_saved_model_is_the_same_model_and_the_same_bytes(model: Model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ROOM.save(model, tmp_path / "a")
    again = ROOM.load(tmp_path / "a")
    ROOM.save(again, tmp_path / "b")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert [str(f) for f in files if f.suffix != ".json"] == [
        "judge.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert str(tmp_path) not in (tmp_path / "b" / "unet" / "config.json").read_text()
    np.testing.assert_array_equal(ROOM.predictor(model).forward("up"), ROOM.predictor(again).forward("up"))


def test_diffusers_opens_what_was_saved(model: Model, tmp_path: Path) -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    ROOM.save(model, tmp_path)
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path, subfolder="unet", use_safetensors=True)
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert unet.config.num_class_embeds == 2
    torch.testing.assert_close(scheduler.alphas_cumprod, model.module.alphas, rtol=1e-4, atol=1e-6)


def test_starting_from_a_checkpoint(model: Model, tmp_path: Path) -> None:
    ROOM.save(model, tmp_path)
    again = ROOM.build(recipe(path=str(tmp_path)), bars(32))
    np.testing.assert_array_equal(ROOM.predictor(model).forward("up"), ROOM.predictor(again).forward("up"))
    with pytest.raises(TrainingError, match="sample_size"):
        ROOM.build(recipe(path=str(tmp_path), sample_size=16), bars(32))
    with pytest.raises(TrainingError, match=r"scheduler_config\.json"):
        ROOM.build(recipe(path=str(tmp_path / "absent")), bars(32))


def test_onnx_agrees_with_torch(model: Model, tmp_path: Path) -> None:
    ROOM.save(model, tmp_path / "model")
    write_rows(tmp_path / "heldout.parquet", bars(12, seed=9))
    (tmp_path / "bundle").mkdir()
    summary = export(recipe(), tmp_path / "model", tmp_path, tmp_path / "bundle")
    assert summary["default"] == "fp32"
    torch_side, onnx_side = ROOM.predictor(model), open_bundle(tmp_path / "bundle")
    np.testing.assert_allclose(onnx_side.forward("up"), torch_side.forward("up"), atol=1e-4)
    prompts, sampling = ["up", "down", "up"], Sampling(num_inference_steps=20, seed=4)
    np.testing.assert_allclose(onnx_side.generate(prompts, sampling), torch_side.generate(prompts, sampling), atol=1e-3)
    shown = Image.open(io.BytesIO(onnx_side.picture("the one with a bright top: up", sampling)))
    assert (shown.size, shown.mode) == ((256, 256), "L")
    assert (onnx_side.kind, onnx_side.count("up")) == ("image", 0)
    with pytest.raises(ValueError, match="the labels are down, up"):
        onnx_side.picture("left", sampling)
    with pytest.raises(ValueError, match="pictures"):
        onnx_side.stream("up", sampling)


def test_evaluation_stands_beside_floor_ceiling_and_baseline(model: Model) -> None:
    rows, heldout = bars(32), bars(20, seed=9)
    config = Evaluate(num_samples=20, generation=Generation(num_inference_steps=5))
    metrics = {m.name: m for m in ROOM.evaluate(ROOM.predictor(model), model, heldout, config, 0)}
    assert metrics["real_label_accuracy"].value == 1
    distance = "classifier_frechet_distance"
    assert metrics[f"real_{distance}"].value < metrics[distance].value < metrics[f"noise_{distance}"].value
    assert all(m.low <= m.value <= m.high for m in metrics.values())
    assert ROOM.baselines(model, rows, heldout).keys() == {"label_accuracy", distance}


def test_samples_are_a_grid_of_labels(model: Model) -> None:
    picture = ROOM.samples(ROOM.predictor(model), model, bars(4), Generation(num_inference_steps=2), 0)
    assert Image.open(io.BytesIO(picture.png)).size == (8 * 9 * 8, 2 * 9 * 8)


def test_guidance_needs_class_dropout() -> None:
    model = trained(bars(16), steps=2, class_dropout_prob=0.2)
    plain, guided = (
        ROOM.predictor(model).generate(["up"], Sampling(num_inference_steps=3, guidance_scale=g))[0] for g in (1, 3)
    )
    assert not np.array_equal(plain, guided)
    without = ROOM.predictor(trained(bars(8), steps=0))
    with pytest.raises(ValueError, match="guidance_scale"):
        without.generate(["up"], Sampling(guidance_scale=2.0))


def test_colour_pictures_are_resized() -> None:
    def block(colour: str) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (20, 12), colour).save(buffer, format="JPEG")
        return buffer.getvalue()

    rows = [Record(id=str(i), image=block(c), label=c) for i, c in enumerate(["red", "blue"] * 2)]
    model = trained(rows, steps=1, in_channels=3, sample_size=16, block_out_channels=(8, 8, 16))
    assert ROOM.predictor(model).generate(["red"], Sampling(num_inference_steps=2))[0].shape == (3, 16, 16)


def test_facts_of_good_and_broken_pictures() -> None:
    good = ROOM.facts(bars(1)[0])
    assert (good["decodes"], good["width"], good["height"], good["label"]) == (True, 8, 8, "down")
    assert 0.2 < float(good["contrast"]) < 0.5
    for data in (None, b"", b"no picture", png(np.zeros((1, 8, 8)))[:40]):
        assert ROOM.facts(Record(id="x", image=data))["decodes"] is False


def test_rows_that_cannot_be_learnt_from_are_named() -> None:
    rows = bars(4)
    model = ROOM.build(recipe(), rows)
    with pytest.raises(TrainingError, match="at least two labels"):
        ROOM.build(recipe(), [r for r in rows if r.label == "up"])
    with pytest.raises(TrainingError, match=r"row 0[\s\S]*label left"):
        ROOM.encode(model, [rows[0].with_fields(label="left")], 0)
    with pytest.raises(TrainingError, match=r"row 0[\s\S]*decoded"):
        ROOM.encode(model, [rows[0].with_fields(image=b"GIF89a")], 0)
