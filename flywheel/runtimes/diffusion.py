"""Class-conditional diffusion on onnxruntime and numpy alone: the schedule, the DDIM loop and a PNG writer.

The loop stands here once. `Sampler` takes the UNet as a function, so that torch (evaluation, parity) and onnxruntime
(serving) draw with the same code from equal noise. Not covered: latent diffusion, text conditions, ancestral sampling.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.runtimes.base import Array, Chunk, Kind, Sampling
from flywheel.runtimes.session import open_session

UNet = Callable[[Array, Array, Array], Array]
"""(samples (batch, channels, height, width) float32, timesteps (batch,) int64, class ids (batch,) int64) → noise."""

BATCH = 128
"""Pictures that are drawn side by side; bounds the memory of a long list of prompts."""
FORWARD_SEED = 1_000_003
"""Seed of the noise that `forward` denoises: far from the seeds that people give."""
LEAST_SIGNAL = 1e-3
"""Sampling starts at the last timestep with this much signal power: earlier ones only amplify rounding errors."""
PEOPLE_PIXELS = 256
"""Pictures for people are enlarged to about this height."""


class Sampler:
    """Draws pictures from a UNet that predicts noise. A prompt is a label such as `"7"` or `"digit 7"`.

    `manifest` holds `labels`, `unconditional` (class id for guidance, or None), `channels`, `sample_size`,
    `num_train_timesteps`, `beta_schedule`, `beta_start`, `beta_end` and `clip_sample`, named as in diffusers.
    """

    def __init__(self, unet: UNet, manifest: Mapping[str, Any]) -> None:
        self.unet = unet
        self.labels: tuple[str, ...] = tuple(manifest["labels"])
        self.unconditional: int | None = manifest["unconditional"]
        self.shape = (int(manifest["channels"]), int(manifest["sample_size"]), int(manifest["sample_size"]))
        self.alphas = alphas_cumprod(manifest)
        self.clip_sample = bool(manifest["clip_sample"])

    def forward(self, prompt: str) -> Array:
        """The noise (channels, height, width) predicted half-way down the schedule for a fixed picture of noise."""
        label = self.class_id(prompt)
        noisy = np.random.default_rng((FORWARD_SEED, label)).standard_normal((1, *self.shape), dtype=np.float32)
        noise: Array = self.unet(noisy, np.array([len(self.alphas) // 2]), np.array([label]))[0]
        return noise

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Array]:
        """One picture (channels, height, width) in [0, 1] for each prompt, from noise drawn by (seed, position).

        Raises ValueError for an unknown label, for more steps than the schedule has, and for guidance of a model
        that was trained without it.
        """
        if not 1 <= sampling.num_inference_steps <= len(self.alphas):
            raise ValueError(f"num_inference_steps must be between 1 and {len(self.alphas)}")
        if sampling.guidance_scale != 1 and self.unconditional is None:
            raise ValueError("guidance_scale must be 1: this model was trained without class dropout")
        labels = np.array([self.class_id(p) for p in prompts], dtype=np.int64)
        pictures: list[Array] = []
        for start in range(0, len(labels), BATCH):
            part = labels[start : start + BATCH]
            draws = (np.random.default_rng((sampling.seed, start + i)) for i in range(len(part)))
            noise = np.stack([d.standard_normal(self.shape, dtype=np.float32) for d in draws])
            pictures.extend(self._denoise(noise, part, sampling) / 2 + 0.5)
        return [np.clip(p, 0, 1) for p in pictures]

    def class_id(self, prompt: str) -> int:
        """The label itself, or the only one that stands in the prompt as words of its own. Raises ValueError.

        Of labels that contain each other (`boot`, `ankle boot`) the longest one counts.
        """
        if prompt in self.labels:
            return self.labels.index(prompt)
        words = "|".join(re.escape(label) for label in sorted(self.labels, key=len, reverse=True))
        found = {match.casefold() for match in re.findall(rf"(?<!\w)(?:{words})(?!\w)", prompt, re.IGNORECASE)}
        ids = [i for i, label in enumerate(self.labels) if label.casefold() in found]
        if len(ids) != 1:
            what = "more than one label" if ids else "no known label"
            raise ValueError(f"{what} in {prompt!r}; the labels are {', '.join(self.labels)}")
        return ids[0]

    def _denoise(self, sample: Array, labels: Array, sampling: Sampling) -> Array:
        """DDIM with eta 0 (Song et al. 2021, equation 12) on trailing timesteps (Lin et al. 2024)."""
        total = max(sampling.num_inference_steps, int((self.alphas >= LEAST_SIGNAL).sum()))
        steps = np.round(np.linspace(total, 0, sampling.num_inference_steps, endpoint=False)).astype(np.int64) - 1
        for step, following in zip(steps, (*steps[1:], -1), strict=True):
            alpha = self.alphas[step]
            noise = self._noise(sample, np.full(len(labels), step), labels, sampling.guidance_scale)
            clean = (sample - np.sqrt(1 - alpha) * noise) / np.sqrt(alpha)
            if self.clip_sample:
                clean = np.clip(clean, -1, 1)
                noise = (sample - np.sqrt(alpha) * clean) / np.sqrt(1 - alpha)
            after = self.alphas[following] if following >= 0 else np.float32(1)
            sample = np.sqrt(after) * clean + np.sqrt(1 - after) * noise
        return sample

    def _noise(self, sample: Array, steps: Array, labels: Array, scale: float) -> Array:
        """Predicted noise, with classifier-free guidance (Ho & Salimans 2022) where `scale` is not 1."""
        noise = self.unet(sample, steps, labels)
        if scale == 1:
            return noise
        free = self.unet(sample, steps, np.full_like(labels, self.unconditional))
        return free + np.float32(scale) * (noise - free)


class Diffusion(Sampler):
    """A served diffusion model: `directory/precision/unet.onnx` behind the sampling loop."""

    kind: Kind = "image"
    context = 0

    def __init__(self, directory: Path, manifest: Mapping[str, Any], precision: str) -> None:
        self.session = open_session(directory / precision / "unet.onnx", gpu=True)
        super().__init__(self._run, manifest)

    def _run(self, sample: Array, timestep: Array, class_labels: Array) -> Array:
        feeds = {"sample": sample, "timestep": timestep, "class_labels": class_labels}
        noise: Array = self.session.run(["noise"], feeds)[0]
        return noise

    def count(self, prompt: str) -> int:
        """A label has no tokens."""
        return 0

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[Chunk]:
        """Pictures are not streamed. Raises ValueError."""
        raise ValueError("this model makes pictures; it does not stream text")

    def picture(self, prompt: str, sampling: Sampling) -> bytes:
        """A PNG of about 256 pixels; small pictures are enlarged without smoothing. Raises ValueError as `generate`."""
        picture = self.generate([prompt], sampling)[0]
        return png(enlarge(picture, max(1, PEOPLE_PIXELS // picture.shape[-1])))


def alphas_cumprod(config: Mapping[str, Any]) -> NDArray[np.float32]:
    """Signal power left at each timestep, shape (num_train_timesteps,), for diffusers' names of schedules.

    `linear` (Ho et al. 2020), `scaled_linear` (Rombach et al. 2022), `squaredcos_cap_v2` (Nichol & Dhariwal 2021).
    Raises ValueError for another `beta_schedule`.
    """
    total, start, end = config["num_train_timesteps"], config["beta_start"], config["beta_end"]
    match config["beta_schedule"]:
        case "linear":
            betas = np.linspace(start, end, total)
        case "scaled_linear":
            betas = np.linspace(start**0.5, end**0.5, total) ** 2
        case "squaredcos_cap_v2":
            bar = np.cos((np.arange(total + 1) / total + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
        case other:
            raise ValueError(f"unknown beta_schedule {other!r}; known: linear, scaled_linear, squaredcos_cap_v2")
    return np.cumprod(1 - betas).astype(np.float32)


def enlarge(picture: Array, factor: int) -> Array:
    """Repeat each pixel of (channels, height, width) `factor` times in both directions."""
    return picture.repeat(factor, axis=-2).repeat(factor, axis=-1)


def png(picture: Array) -> bytes:
    """An 8-bit PNG of (1 or 3, height, width) in [0, 1]; equal pictures give equal bytes."""
    channels, height, width = picture.shape
    pixels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0).reshape(height, -1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(body)) + kind + body + _crc(kind + body) for kind, body in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))
