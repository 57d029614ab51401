"""The sampling loop in numpy, the labels it understands and the pictures it writes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from flywheel.runtimes.base import Sampling
from flywheel.runtimes.diffusion import BATCH, Sampler, alphas_cumprod, enlarge, png

MANIFEST: dict[str, Any] = {
    "labels": ["7", "ankle boot", "boot"],
    "unconditional": None,
    "channels": 1,
    "sample_size": 8,
    "num_train_timesteps": 100,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "clip_sample": True,
}


def oracle(target: NDArray[np.float32]) -> Sampler:
    """A sampler whose UNet knows that the picture is `target`: class id c makes it c times as bright."""
    alphas = alphas_cumprod(MANIFEST)

    def unet(sample: NDArray[Any], steps: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
        alpha = alphas[steps][:, None, None, None]
        clean = target * labels[:, None, None, None]
        noise: NDArray[Any] = ((sample - np.sqrt(alpha) * clean) / np.sqrt(1 - alpha)).astype(np.float32)
        return noise

    return Sampler(unet, MANIFEST)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_loop_arrives_at_the_picture_that_the_unet_knows(steps: int) -> None:
    target = np.linspace(-0.5, 0.5, 64, dtype=np.float32).reshape(1, 8, 8)
    pictures = oracle(target).generate(["ankle boot", "7"], Sampling(num_inference_steps=steps))
    np.testing.assert_allclose(pictures[0], target / 2 + 0.5, atol=1e-4)
    np.testing.assert_allclose(pictures[1], 0.5, atol=1e-4)


@pytest.mark.parametrize("steps", [10, 25])
def test_loop_equals_diffusers(steps: int) -> None:
    import torch

    diffusers: Any = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(100, beta_schedule="linear", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    noise = np.random.default_rng((3, 0)).standard_normal((1, 1, 8, 8), dtype=np.float32)
    sample = torch.from_numpy(noise)
    for step in scheduler.timesteps:
        sample = scheduler.step(torch.tanh(sample), step, sample, use_clipped_model_output=True).prev_sample
    own = Sampler(lambda x, steps, labels: np.tanh(x), MANIFEST)
    picture = own.generate(["7"], Sampling(num_inference_steps=steps, seed=3))[0]
    np.testing.assert_allclose(picture, (sample[0] / 2 + 0.5).clamp(0, 1).numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedules_equal_diffusers(name: str) -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(1000, beta_schedule=name)
    ours = alphas_cumprod({**MANIFEST, "beta_schedule": name, "num_train_timesteps": 1000})
    np.testing.assert_allclose(ours, theirs.alphas_cumprod.numpy(), rtol=2e-3, atol=1e-7)


def test_cosine_schedule_does_not_amplify_rounding_errors() -> None:
    manifest = {**MANIFEST, "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000}
    rough, smooth = (Sampler(lambda x, t, y, e=e: np.tanh(x) + np.float32(e), manifest) for e in (1e-6, 0))  # type: ignore[misc]
    a, b = (s.generate(["7"] * 8, Sampling(num_inference_steps=25)) for s in (rough, smooth))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_unknown_schedule_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="linear, scaled_linear"):
        alphas_cumprod({**MANIFEST, "beta_schedule": "sigmoid"})


def test_noise_depends_on_seed_and_position_alone() -> None:
    sampler = Sampler(lambda x, steps, labels: 0.1 * x, MANIFEST)
    many = sampler.generate(["7"] * (BATCH + 2), Sampling(seed=1, num_inference_steps=2))
    few = sampler.generate(["7", "7"], Sampling(seed=1, num_inference_steps=2))
    other = sampler.generate(["7"], Sampling(seed=2, num_inference_steps=2))
    np.testing.assert_array_equal(many[:2], few)
    assert not np.array_equal(many[0], many[BATCH])
    assert not np.array_equal(many[0], other[0])


@pytest.mark.parametrize("prompt", ["7", " 7 ", "digit 7", "Digit: 7!", "a 7, please"])
def test_label_is_found_in_a_prompt(prompt: str) -> None:
    assert Sampler(lambda x, steps, labels: x, MANIFEST).class_id(prompt) == 0


@pytest.mark.parametrize(("prompt", "label"), [("BOOT", 2), ("ankle boot", 1), ("an Ankle Boot in grey", 1)])
def test_longest_label_wins(prompt: str, label: int) -> None:
    assert Sampler(lambda x, steps, labels: x, MANIFEST).class_id(prompt) == label


@pytest.mark.parametrize("prompt", ["", "eleven", "77", "7 or boot"])
def test_unknown_prompt_lists_the_labels(prompt: str) -> None:
    with pytest.raises(ValueError, match="the labels are 7, ankle boot, boot"):
        Sampler(lambda x, steps, labels: x, MANIFEST).generate([prompt], Sampling())


@pytest.mark.parametrize("steps", [0, 101])
def test_steps_outside_the_schedule(steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 100"):
        Sampler(lambda x, t, labels: x, MANIFEST).generate(["7"], Sampling(num_inference_steps=steps))


@given(
    st.sampled_from([1, 3]).flatmap(
        lambda c: arrays(np.uint8, st.tuples(st.just(c), st.integers(1, 20), st.integers(1, 20)))
    )
)
def test_png_holds_every_pixel(pixels: NDArray[np.uint8]) -> None:
    picture = Image.open(io.BytesIO(png(pixels / 255)))
    expected = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(picture), expected)


def test_enlarging_repeats_pixels() -> None:
    picture = np.arange(4.0).reshape(1, 2, 2)
    np.testing.assert_array_equal(enlarge(picture, 2)[0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
