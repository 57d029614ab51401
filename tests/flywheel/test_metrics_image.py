"""Metrics of pictures: the judge, the Fréchet distance and its interval, the Gaussian baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flywheel.metrics.image import Judge, frechet, frechet_distance, gaussian_baseline, gaussian_pictures, score

Pictures = tuple[NDArray[Any], NDArray[Any]]


def blobs(count: int, seed: int, classes: int = 3) -> Pictures:
    """Noisy 8x8 pictures with one bright row that says the class."""
    rng = np.random.default_rng(seed)
    ids = np.arange(count) % classes
    pictures = rng.random((count, 1, 8, 8)).astype(np.float32) * 0.5
    pictures[np.arange(count), 0, ids] += 0.5
    return pictures, ids


@pytest.mark.parametrize("classes", [2, 3])
def test_judge_learns_repeats_and_is_saved(classes: int, tmp_path: Path) -> None:
    judge = Judge.fit(*blobs(120, 0, classes), seed=0)
    pictures, ids = blobs(60, 1, classes)
    assert (judge.predict(pictures) == ids).mean() > 0.95
    judge.save(tmp_path / "judge.safetensors")
    for other in (Judge.fit(*blobs(120, 0, classes), seed=0), Judge.load(tmp_path / "judge.safetensors")):
        np.testing.assert_array_equal(other.features(pictures), judge.features(pictures))
        np.testing.assert_array_equal(other.predict(pictures), judge.predict(pictures))


def test_frechet_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20_000, 2))
    b = rng.standard_normal((20_000, 2)) * [2.0, 1.0] + [3.0, 0.0]
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, b) == pytest.approx(3**2 + (2 - 1) ** 2, rel=0.03)
    assert frechet(a, b) == pytest.approx(frechet(b, a))


def test_frechet_of_correlated_gaussians_equals_the_matrix_root() -> None:
    sqrtm = pytest.importorskip("scipy.linalg").sqrtm
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((300, 4)) @ rng.standard_normal((4, 4)) for _ in range(2))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)


def test_interval_lies_around_the_value_and_shrinks_with_more_pictures() -> None:
    widths = []
    for count in (60, 600):
        (pictures, ids), (real, _) = blobs(count, 1), blobs(600, 2)
        metric = frechet_distance("d", pictures.reshape(count, -1)[:, :8], ids, real.reshape(600, -1)[:, :8])
        assert 0 <= metric.low <= metric.value <= metric.high
        widths.append(metric.high - metric.low)
    assert widths[1] < widths[0]


def test_number_of_pictures_does_not_move_the_distance() -> None:
    (pictures, ids), (real, _) = blobs(900, 1), blobs(90, 2)
    features, target = pictures.reshape(900, -1), real.reshape(90, -1)
    few, many = (frechet_distance("d", features[:n], ids[:n], target) for n in (90, 900))
    assert many.value == pytest.approx(few.value, rel=0.15)
    assert frechet(features, target) < 0.8 * many.value
    assert many.high - many.low < few.high - few.low


def test_interval_holds_as_often_as_it_says() -> None:
    real = blobs(300, 0)[0].reshape(300, -1)[:, :4]
    metrics = []
    for seed in range(1, 31):
        pictures, ids = blobs(90, seed)
        metrics.append(frechet_distance("d", pictures.reshape(90, -1)[:, :4], ids, real, seed))
    expected = np.mean([m.value for m in metrics])
    assert np.mean([m.low <= expected <= m.high for m in metrics]) >= 0.85


def test_scores_order_real_generated_and_noise() -> None:
    train, real = blobs(240, 0), blobs(120, 1)
    judge = Judge.fit(*train, seed=0)
    blurred = np.clip(blobs(120, 2)[0] * 0.8 + 0.1, 0, 1), real[1]
    metrics = {m.name: m for m in score(judge, blurred, real)}
    values = [metrics[f"{p}classifier_frechet_distance"].value for p in ("real_", "", "noise_")]
    assert values == sorted(values)
    assert metrics["label_accuracy"].value > 0.9
    wrong = {m.name: m for m in score(judge, (blurred[0], (blurred[1] + 1) % 3), real)}
    assert wrong["label_accuracy"].value < 0.1


def test_gaussian_pictures_have_the_moments_of_their_class() -> None:
    train = blobs(600, 0)
    drawn = gaussian_pictures(train, np.full(2000, 1), seed=0)
    own = train[0][train[1] == 1].reshape(-1, 64)
    np.testing.assert_allclose(drawn.reshape(-1, 64).mean(axis=0), np.clip(own, 0, 1).mean(axis=0), atol=0.05)
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_gaussian_baseline_lies_between_floor_and_noise() -> None:
    train, real = blobs(240, 0), blobs(120, 1)
    judge = Judge.fit(*train, seed=0)
    baseline = gaussian_baseline(judge, train, real)
    metrics = {m.name: m.value for m in score(judge, real, real)}
    assert 0 < baseline["classifier_frechet_distance"] < metrics["noise_classifier_frechet_distance"]
    assert baseline["label_accuracy"] > 0.9
