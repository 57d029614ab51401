"""The room for class-conditional diffusion on small pictures: a diffusers UNet2DModel that predicts noise (DDPM).

Pictures have a label each; the label is also the prompt. Sampling lives in flywheel.runtimes.diffusion and is shared
with serving. A model directory has diffusers' layout:

    unet/  scheduler/     as diffusers writes them, weights as safetensors
    labels.json           {"labels": [...] by class id, "class_dropout_prob": p}
    judge.safetensors     the classifier that evaluation asks (flywheel.metrics.image)

Not covered: latent diffusion, text conditions, pictures without a label.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from flywheel.errors import TrainingError
from flywheel.metrics.image import Judge, gaussian_baseline, score
from flywheel.metrics.metric import Metric
from flywheel.modalities.base import Array, Export, Graph, Model, Picture
from flywheel.modalities.labelled_pictures import Painted, arrays, decode
from flywheel.recipe import Evaluate, Generation, Recipe
from flywheel.recipe_models import ImageDiffusionModel
from flywheel.record import Record
from flywheel.runtimes.base import Predictor, Sampling
from flywheel.runtimes.diffusion import Sampler, UNet, alphas_cumprod, enlarge, png

SCHEDULE = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "clip_sample")
"""Keys of a scheduler's config that training and sampling read."""
COLUMNS, ENLARGED = 8, 8
"""Samples of each label in the picture for people, and the factor by which they are enlarged."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHOWN_LABELS = 64


@dataclass(frozen=True)
class Processor:
    """What turns rows into inputs and samples into figures."""

    labels: tuple[str, ...]
    """Label of each class id."""
    schedule: Mapping[str, Any]
    """The keys named by `SCHEDULE`."""
    judge: Judge


class Denoiser(nn.Module):
    """A UNet with the noise schedule that it is trained on. With class dropout the last class id means no label."""

    alphas: torch.Tensor

    def __init__(self, unet: nn.Module, schedule: Mapping[str, Any], class_dropout_prob: float) -> None:
        super().__init__()
        self.unet, self.class_dropout_prob = unet, class_dropout_prob
        self.register_buffer("alphas", torch.from_numpy(alphas_cumprod(schedule)), persistent=False)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """Noise in `sample` (batch, channels, height, width) at `timestep` (batch,) under `class_labels` (batch,)."""
        noise: torch.Tensor = self.unet(sample, timestep, class_labels).sample
        return noise


class Pictures(Dataset[Mapping[str, Any]]):
    """`pixel_values` (channels, height, width) in [-1, 1] and `class_labels` (); pictures are kept as bytes."""

    def __init__(self, pictures: Array, ids: Array) -> None:
        self.pictures, self.ids = torch.from_numpy(np.round(pictures * 255).astype(np.uint8)), torch.from_numpy(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"pixel_values": self.pictures[index] / 127.5 - 1, "class_labels": self.ids[index]}


class ImageDiffusion:
    """See flywheel.modalities.base.Modality for what each method promises."""

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        """`label`, `digest`, `decodes`; where it does, `width`, `height`, `contrast` (standard deviation, 0..0.5)."""
        data = record.image or b""
        facts: dict[str, bool | int | float | str] = {"digest": hashlib.sha256(data).hexdigest()}
        if record.label is not None:
            facts["label"] = record.label
        try:
            pixels = decode(data, "L", None)
        except ValueError:
            return {**facts, "decodes": False}
        height, width = pixels.shape[-2:]
        return {**facts, "decodes": True, "width": width, "height": height, "contrast": float(pixels.std())}

    def build(self, recipe: Recipe, rows: Sequence[Record]) -> Model:
        """Also trains the judge on the rows. Raises TrainingError for fewer than two labels or an unfit checkpoint."""
        config = recipe.model
        assert isinstance(config, ImageDiffusionModel)
        labels = tuple(sorted({row.label for row in rows if row.label is not None}))
        if len(labels) < 2:
            found = f"{len(labels)} labels in {len(rows)} rows"
            raise TrainingError("pictures to train on", found=found, expected="at least two labels")
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            module, schedule = _pretrained(config, labels) if config.path else _from_scratch(config, labels)
        shape = (config.in_channels, config.sample_size)
        judge = Judge.fit(*arrays(rows, labels, shape), recipe.seed)
        return Model(module, Processor(labels, schedule, judge))

    def outline(self, recipe: Recipe, max_length: int) -> tuple[nn.Module, Mapping[str, Any]]:
        """The UNet without its weights, and a picture; how many labels there are matters little."""
        config, labels = recipe.model, ("", "other")
        assert isinstance(config, ImageDiffusionModel)
        if config.path is None:
            module = _from_scratch(config, labels)[0]
        else:
            unet, schedule = _read(Path(config.path), weights=False)
            module = Denoiser(unet, schedule, config.class_dropout_prob)
        picture = torch.zeros(config.in_channels, config.sample_size, config.sample_size)
        return module, {"pixel_values": picture, "class_labels": torch.tensor(0)}

    def encode(
        self, model: Model, rows: Sequence[Record], max_length: int, whole: bool = False
    ) -> Dataset[Mapping[str, Any]]:
        return Pictures(*arrays(rows, model.processor.labels, _shape(model)))

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return {key: torch.stack([f[key] for f in features]) for key in ("pixel_values", "class_labels")}

    def losses(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Mean squared error of the predicted noise (Ho et al. 2020, equation 14)."""
        clean, labels = batch["pixel_values"], batch["class_labels"]
        denoiser: Any = module
        noise = torch.randn_like(clean)
        steps = torch.randint(len(denoiser.alphas), labels.shape, device=labels.device)
        alpha = denoiser.alphas[steps][:, None, None, None]
        if denoiser.class_dropout_prob:
            dropped = torch.rand(labels.shape, device=labels.device) < denoiser.class_dropout_prob
            labels = torch.where(dropped, denoiser.unet.config.num_class_embeds - 1, labels)
        predicted = denoiser(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, steps, labels)
        return {"": (predicted.float() - noise).square().mean()}

    def save(self, model: Model, directory: Path) -> None:
        module, processor = _denoiser(model), model.processor
        unet: Any = module.unet
        unet.save_pretrained(directory / "unet", safe_serialization=True)
        _diffusers().DDIMScheduler(**processor.schedule, timestep_spacing="trailing").save_pretrained(
            directory / "scheduler"
        )
        conditions = {"labels": list(processor.labels), "class_dropout_prob": module.class_dropout_prob}
        (directory / "labels.json").write_text(json.dumps(conditions, indent=1, ensure_ascii=False))
        processor.judge.save(directory / "judge.safetensors")

    def load(self, directory: Path) -> Model:
        conditions = json.loads((directory / "labels.json").read_text())
        unet, schedule = _read(directory)
        processor = Processor(tuple(conditions["labels"]), schedule, Judge.load(directory / "judge.safetensors"))
        return Model(Denoiser(unet, schedule, conditions["class_dropout_prob"]).eval(), processor)

    def predictor(self, model: Model) -> Predictor:
        return Sampler(_unet(_denoiser(model)), _manifest(model))

    def prompts(self, model: Model, rows: Sequence[Record], count: int) -> list[Any]:
        """Labels of the first rows, over again where there are fewer rows."""
        return [rows[i % len(rows)].label for i in range(count)]

    def evaluate(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """`num_samples` pictures with labels in the proportions of the rows; see flywheel.metrics.image.score."""
        processor: Processor = model.processor
        real = arrays(rows, processor.labels, _shape(model))
        ids = np.sort(real[1])[np.arange(config.num_samples) * len(rows) // config.num_samples]
        drawn = predictor.generate([processor.labels[i] for i in ids], _sampling(config.generation, seed))
        return score(processor.judge, (np.stack(drawn), ids), real, seed)

    def painter(self, model: Model, predictor: Predictor) -> Painted:
        """The model, asked for a picture of each row's label."""
        return Painted(predictor, model.processor.labels, _shape(model), model.processor.judge)

    def judged_alike(self, model: Model, other: Model) -> Model:
        """`model` with the judge of `other`, so that both are measured by the same one."""
        return Model(model.module, replace(model.processor, judge=other.processor.judge))

    def baselines(self, model: Model, train: Sequence[Record], heldout: Sequence[Record]) -> dict[str, float]:
        """A Gaussian fitted to the pixels of each class."""
        known, held_out = (arrays(rows, model.processor.labels, _shape(model)) for rows in (train, heldout))
        return gaussian_baseline(model.processor.judge, known, held_out)

    def samples(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], generation: Generation, seed: int
    ) -> Any:
        """A grid with a row of pictures for each label."""
        labels = model.processor.labels[:SHOWN_LABELS]
        drawn = predictor.generate([x for x in labels for _ in range(COLUMNS)], _sampling(generation, seed))
        drawn = [np.pad(picture, ((0, 0), (0, 1), (0, 1)), constant_values=0.4) for picture in drawn]
        lines = [np.concatenate(drawn[i : i + COLUMNS], axis=2) for i in range(0, len(drawn), COLUMNS)]
        return Picture("samples", png(enlarge(np.concatenate(lines, axis=1), ENLARGED)))

    def export(self, model: Model, directory: Path) -> Export:
        channels, side = _shape(model)
        inputs = ("sample", "timestep", "class_labels")
        example = (torch.randn(2, channels, side, side), torch.tensor([0, 1]), torch.tensor([0, 1]))
        graph = Graph(model.module, example, inputs, ("noise",), {name: {0: "batch"} for name in inputs})
        return Export({"unet": graph}, _manifest(model))


def _manifest(model: Model) -> dict[str, Any]:
    """What the sampling loop needs, as plain JSON."""
    channels, side = _shape(model)
    processor: Processor = model.processor
    guided = _denoiser(model).class_dropout_prob > 0
    return {
        "runtime": "diffusion",
        "labels": list(processor.labels),
        "example_prompt": processor.labels[0],
        "unconditional": len(processor.labels) if guided else None,
        "channels": channels,
        "sample_size": side,
        **processor.schedule,
    }


def _unet(module: Denoiser) -> UNet:
    """The module as a function of arrays."""

    def run(sample: Array, timestep: Array, class_labels: Array) -> Array:
        device = module.alphas.device
        inputs = (torch.from_numpy(a).to(device) for a in (sample, timestep, class_labels))
        with torch.inference_mode():
            noise: Array = module.eval()(*inputs).float().cpu().numpy()
        return noise

    return run


def _from_scratch(config: ImageDiffusionModel, labels: Sequence[str]) -> tuple[Denoiser, dict[str, Any]]:
    """A UNet of the recipe's sizes, with attention at the lowest resolution."""
    channels, above = config.block_out_channels, len(config.block_out_channels) - 1
    unet = _diffusers().UNet2DModel(
        sample_size=config.sample_size,
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        block_out_channels=channels,
        layers_per_block=config.layers_per_block,
        down_block_types=(*["DownBlock2D"] * above, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", *["UpBlock2D"] * above),
        norm_num_groups=math.gcd(8, *channels),
        attention_head_dim=math.gcd(8, channels[-1]),
        num_class_embeds=len(labels) + (config.class_dropout_prob > 0),
    )
    defaults = _diffusers().DDIMScheduler(config.num_train_timesteps, beta_schedule=config.beta_schedule).config
    schedule = {**{key: defaults[key] for key in SCHEDULE}, "clip_sample": True}
    return Denoiser(unet, schedule, config.class_dropout_prob), schedule


def _pretrained(config: ImageDiffusionModel, labels: Sequence[str]) -> tuple[Denoiser, dict[str, Any]]:
    """A UNet from a diffusers directory, checked against recipe and labels."""
    directory = Path(config.path or "")
    unet, schedule = _read(directory)
    wanted = {
        "sample_size": config.sample_size,
        "in_channels": config.in_channels,
        "num_class_embeds": len(labels) + (config.class_dropout_prob > 0),
    }
    found = {key: unet.config[key] for key in wanted}
    if found != wanted:
        raise TrainingError(
            f"checkpoint {directory}",
            found=str(found),
            expected=f"{wanted} as in the recipe and its data",
            remedy="give the recipe the sizes of the checkpoint, or leave `model.path` out to train from scratch",
        )
    return Denoiser(unet, schedule, config.class_dropout_prob), schedule


def _read(directory: Path, *, weights: bool = True) -> tuple[Any, dict[str, Any]]:
    """UNet and schedule from diffusers' layout. Only JSON and safetensors are read, never code."""
    from safetensors.torch import load_file

    try:
        scheduler = json.loads((directory / "scheduler" / "scheduler_config.json").read_text())
        unet: Any = _diffusers().UNet2DModel.from_config(json.loads((directory / "unet" / "config.json").read_text()))
        if weights:
            unet.load_state_dict(load_file(directory / "unet" / WEIGHTS))
        schedule = {key: scheduler[key] for key in SCHEDULE}
        alphas_cumprod(schedule)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise TrainingError(
            f"checkpoint {directory}",
            found=str(error),
            expected=f"a diffusers directory with scheduler/scheduler_config.json, unet/config.json and unet/{WEIGHTS}",
        ) from error
    if scheduler.get("prediction_type", "epsilon") != "epsilon":
        found = f"prediction_type {scheduler['prediction_type']}"
        raise TrainingError(f"checkpoint {directory}", found=found, expected="a model that predicts noise (epsilon)")
    return unet, schedule


def _diffusers() -> Any:
    """Untyped, and seconds to import."""
    import diffusers

    return diffusers


def _denoiser(model: Model) -> Denoiser:
    assert isinstance(model.module, Denoiser)
    return model.module


def _shape(model: Model) -> tuple[int, int]:
    """Channels, and height = width."""
    unet: Any = _denoiser(model).unet
    return unet.config.in_channels, unet.config.sample_size


def _sampling(generation: Generation, seed: int) -> Sampling:
    steps, scale = generation.num_inference_steps, generation.guidance_scale
    return Sampling(seed=seed, num_inference_steps=steps, guidance_scale=scale)
