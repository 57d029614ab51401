"""Distances between sets of features: parity with torchmetrics, known cases, and weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flywheel.comparison import compare
from flywheel.metrics.distances import distances, frechet, frechet_of, inception_of, kernel, kernel_of, manifolds
from flywheel.metrics.image import frechet_scores
from flywheel.metrics.scores import AGGREGATES, Scores, draws

Array = NDArray[Any]


def sets(count: int = 200, width: int = 8, seed: int = 0) -> tuple[Array, Array]:
    """Correlated features of two sets that differ in mean and spread."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((width, width)) / np.sqrt(width)
    return rng.standard_normal((count, width)) @ mix + 0.3, 1.2 * rng.standard_normal((count, width)) @ mix


def torch_metric(kind: str, generated: Array, real: Array, **options: Any) -> Any:
    """What a class of torchmetrics measures when the pictures are the features."""
    module = {"FrechetInceptionDistance": "fid", "KernelInceptionDistance": "kid", "InceptionScore": "inception"}[kind]
    image = pytest.importorskip(f"torchmetrics.image.{module}")
    import torch

    class Same(torch.nn.Module):
        num_features = generated.shape[1]

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures

    metric = getattr(image, kind)(feature=Same(), **options)
    metric.set_dtype(torch.float64)
    for pictures, is_real in ((generated, False), (real, True)):
        metric.update(torch.from_numpy(pictures), *([is_real] if kind != "InceptionScore" else []))
    return metric.compute()


def test_frechet_is_that_of_torchmetrics() -> None:
    generated, real = sets()
    expected = float(torch_metric("FrechetInceptionDistance", generated, real))
    assert frechet(generated, real) == pytest.approx(expected, rel=1e-9)
    assert f"{frechet(generated, real):.6f}" == f"{expected:.6f}"


@pytest.mark.parametrize(("generated", "real"), [(300, 200), (40, 200), (200, 20), (20, 20)])
def test_frechet_with_more_or_fewer_pictures_than_features(generated: int, real: int) -> None:
    sqrtm = pytest.importorskip("scipy.linalg").sqrtm
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((generated, 30)) + 0.5, 2 * rng.standard_normal((real, 30))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("of", [frechet_of, kernel_of])
def test_a_weight_of_two_is_the_picture_given_twice_and_none_leaves_it_out(of: Any) -> None:
    generated, real = sets(30)
    weights = draws(30, 3, seed=0)
    if of is kernel_of:
        weights = np.minimum(weights, 1)  # whose pictures make no pairs with themselves
    expected = [of(np.repeat(generated, w.astype(int), axis=0), np.ones((1, int(w.sum()))), real)[0] for w in weights]
    np.testing.assert_allclose(of(generated, weights, real), expected, rtol=1e-9)


def test_kernel_is_that_of_torchmetrics() -> None:
    generated, real = sets()
    mean, _ = torch_metric("KernelInceptionDistance", generated, real, subsets=1, subset_size=len(real))
    assert kernel(generated, real) == pytest.approx(float(mean), rel=1e-9)
    assert f"{kernel(generated, real):.6f}" == f"{float(mean):.6f}"


def test_kernel_is_unbiased_and_can_be_negative() -> None:
    rng = np.random.default_rng(0)
    values = [kernel(*rng.standard_normal((2, 20, 4))) for _ in range(300)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)


def test_drawing_pictures_again_does_not_raise_the_kernel_distance() -> None:
    generated, real = sets(60)
    resampled = kernel_of(generated, draws(60, 2000, seed=1), real)
    assert resampled.mean() == pytest.approx(kernel(generated, real), abs=3 * resampled.std() / np.sqrt(2000) + 0.01)


def test_inception_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((150, 6))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean, _ = torch_metric("InceptionScore", logits, logits, splits=1)
    found = inception_of(shares, np.ones((1, 150)))[0]
    assert found == pytest.approx(float(mean), rel=1e-9)
    assert f"{found:.6f}" == f"{float(mean):.6f}"


def test_inception_of_known_shares() -> None:
    every, one = np.ones((1, 4)), np.array([[2.0, 2.0, 0.0, 0.0]])
    assert inception_of(np.eye(4), every)[0] == pytest.approx(4)
    assert inception_of(np.full((4, 4), 0.25), every)[0] == pytest.approx(1)
    assert inception_of(np.eye(4), one)[0] == pytest.approx(2)


def test_manifolds_are_those_of_the_papers_definitions() -> None:
    """Written out picture by picture (Kynkäänniemi et al. 2019, equations 1 to 3; Naeem et al. 2020, 3 and 4)."""
    (generated, real), k = sets(40, 3), 3

    def ball(point: Array, others: Array) -> float:
        return sorted(float(np.linalg.norm(point - other)) for other in others)[k]

    real_balls, own_balls = [ball(y, real) for y in real], [ball(x, generated) for x in generated]
    inside = [[np.linalg.norm(x - y) <= r for y, r in zip(real, real_balls, strict=True)] for x in generated]
    found = manifolds(generated, real, k)
    assert found.precision.tolist() == [any(row) for row in inside]
    assert found.density.tolist() == [sum(row) / k for row in inside]
    assert found.coverage.tolist() == [any(row[j] for row in inside) for j in range(40)]
    assert found.recall.tolist() == [
        any(np.linalg.norm(x - y) <= r for x, r in zip(generated, own_balls, strict=True)) for y in real
    ]
    assert 0 < found.precision.mean() < 1


def test_lost_modes_cost_recall_and_far_pictures_precision() -> None:
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((100, 2)), rng.standard_normal((100, 2)) + 50])
    one_mode = rng.standard_normal((200, 2))
    half_far = np.concatenate([real[::2] + 0.01, rng.standard_normal((100, 2)) - 500])
    lost, far = manifolds(one_mode, real, 3), manifolds(half_far, real, 3)
    assert lost.precision.mean() > 0.9
    assert lost.recall.mean() == pytest.approx(0.5, abs=0.05)
    assert lost.coverage.mean() == pytest.approx(0.5, abs=0.05)
    assert far.precision.mean() == pytest.approx(0.5)
    assert far.recall.mean() > 0.9


def test_blocks_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    (generated, real), weights = sets(50), draws(50, 4, seed=0)
    whole = kernel_of(generated, weights, real), manifolds(generated, real, 3)
    monkeypatch.setattr("flywheel.metrics.distances._BLOCK", 7 * 50)
    np.testing.assert_allclose(kernel_of(generated, weights, real), whole[0])
    for one, other in zip(manifolds(generated, real, 3), whole[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_distances_between_rows() -> None:
    a, b = sets(5, 3)
    np.testing.assert_allclose(distances(a, b), [[np.linalg.norm(x - y) for y in b] for x in a])


def test_a_champion_and_a_better_and_an_equal_challenger() -> None:
    rng = np.random.default_rng(3)
    real, near, far = rng.standard_normal((150, 8)), rng.standard_normal((150, 8)), 1.5 * rng.standard_normal((150, 8))
    again = rng.standard_normal((150, 8))
    for how in ("frechet", "kernel"):
        assert how in AGGREGATES
        one, worse, alike = (Scores(some, how, fixed=real) for some in (near, far, again))
        better, equal = compare("d", "lower", (one, worse), 0.01), compare("d", "lower", (one, alike), 0.01)
        assert better.gain > 0
        assert better.p_better < 0.01
        assert equal.p_better > 0.025
        assert equal.p_worse > 0.025


def test_wide_features_are_not_compared_picture_by_picture() -> None:
    assert frechet_scores(np.ones((4, 129)), np.ones((4, 129))) is None
    assert frechet_scores(np.ones((4, 128)), np.ones((4, 128))) is not None
