"""How far generated pictures are from real ones, by their features; whoever calls says which extractor they are from.

Features are (pictures, width). Functions that end in `_of` give the figure for every weighting of the generated
pictures, as flywheel.metrics.scores asks: `weights` (draws, pictures) count how often each of them was drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

_BLOCK = 1 << 22
"""Elements of a matrix of pairs that is held at a time."""


# ---------------------------------------------------------------- Fréchet


def frechet(generated: Array, real: Array) -> float:
    """Squared Fréchet distance of the Gaussians fitted to features (n, d) and (m, d); Heusel et al. 2017."""
    return float(frechet_of(np.asarray(generated, np.float64), np.ones((1, len(generated))), real)[0])


def frechet_of(parts: Floats, weights: Floats, fixed: Array | None) -> Floats:
    """`frechet` of generated features (n, d) to real ones (m, d) for each row of weights, (draws,)."""
    assert fixed is not None
    centre = fixed.mean(axis=0, dtype=np.float64)
    x, y = parts - centre, fixed - centre  # which loses fewer digits than raw moments do
    counts = weights.sum(axis=1)
    shift = np.square(weights @ x / counts[:, None]).sum(axis=1)
    spread = (weights @ np.square(x).sum(axis=1) - counts * shift) / (counts - 1)
    found: Floats = shift + spread + np.square(y).sum() / (len(y) - 1) - 2 * _traces_of_root(x @ _factor(y), weights)
    return np.maximum(found, 0)


def _factor(y: Floats) -> Floats:
    """F (d, k) with F F' the covariance of centred features (m, d), k the smaller of d and m."""
    if len(y) < y.shape[1]:
        found: Floats = y.T / np.sqrt(len(y) - 1)
    else:
        values, vectors = np.linalg.eigh(y.T @ y / (len(y) - 1))
        found = vectors * np.sqrt(np.maximum(values, 0))
    return found


def _traces_of_root(z: Floats, weights: Floats) -> Floats:
    """The trace of the root of the covariance of z (n, k) for each row of weights.

    With z the generated features times a factor of the real covariance, it is the trace of the root of the product of
    both covariances.
    """
    found = np.empty(len(weights))
    for i, row in enumerate(weights):
        drawn = np.flatnonzero(row)
        times, total = row[drawn, None], row.sum()
        rows = z[drawn]
        rows = (rows - (times * rows).sum(axis=0) / total) * np.sqrt(times / (total - 1))
        gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
        found[i] = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum()
    return found


# ---------------------------------------------------------------- kernel


def kernel(generated: Array, real: Array) -> float:
    """Squared maximum mean discrepancy of features (n, d) and (m, d) under the kernel (x·y / d + 1)³, unbiased and
    therefore at times below 0; Bińkowski et al. 2018. All pairs are taken, so no subsets have to be drawn."""
    return float(kernel_of(np.asarray(generated, np.float64), np.ones((1, len(generated))), real)[0])


def kernel_of(parts: Floats, weights: Floats, fixed: Array | None) -> Floats:
    """`kernel` of generated features (n, d) to real ones (m, d) for each row of weights, (draws,).

    A picture that was drawn twice makes no pair with itself, which would look like a picture just like it.
    """
    assert fixed is not None
    real = fixed.astype(np.float64)
    total, cross, counts = np.zeros(len(weights)), np.zeros(len(weights)), weights.sum(axis=1)
    for rows in _blocks(len(parts), max(len(parts), len(real))):
        total += ((weights[:, rows] @ _unlike(parts, rows)) * weights).sum(axis=1)
        cross += weights[:, rows] @ _cubic(parts[rows], real).mean(axis=1)
    own = sum(float(_unlike(real, rows).sum()) for rows in _blocks(len(real), len(real)))
    pairs = np.square(counts) - np.square(weights).sum(axis=1)
    found: Floats = total / pairs + own / (len(real) * (len(real) - 1)) - 2 * cross / counts
    return found


def _unlike(x: Floats, rows: slice) -> Floats:
    """The kernel of some rows with all, 0 for each with itself."""
    block = _cubic(x[rows], x)
    np.fill_diagonal(block[:, rows], 0)
    return block


def _cubic(a: Floats, b: Floats) -> Floats:
    found: Floats = (a @ b.T / a.shape[1] + 1) ** 3
    return found


# ---------------------------------------------------------------- classifier score


def inception_of(parts: Floats, weights: Floats, fixed: Array | None = None) -> Floats:
    """exp of the mutual information of picture and class, from class probabilities (n, classes): (draws,).

    Between 1 and the number of classes; Salimans et al. 2016, without splits.
    """
    shares = weights / weights.sum(axis=1, keepdims=True)
    found: Floats = np.exp(_entropy(shares @ parts) - shares @ _entropy(parts))
    return found


def _entropy(probabilities: Floats) -> Floats:
    """In nats, over the last axis."""
    found: Floats = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=-1)
    return found


# ---------------------------------------------------------------- precision and recall


class Manifolds(NamedTuple):
    """How generated and real pictures cover each other; each array has an entry for each picture."""

    precision: Floats
    """(generated,): 1 where the picture is as near to a real one as that one's k-th neighbour among the real."""
    recall: Floats
    """(real,): the same with generated and real exchanged."""
    density: Floats
    """(generated,): how many real pictures it is that near to, divided by k."""
    coverage: Floats
    """(real,): 1 where a generated picture is as near as the real one's own k-th neighbour."""


def manifolds(generated: Array, real: Array, neighbours: int) -> Manifolds:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), by Euclidean distance.

    `neighbours`, their k, must be smaller than the number of pictures on each side.
    """
    reach, own_reach = _reach(real, neighbours), _reach(generated, neighbours)
    near, recalled, covered = np.zeros(len(generated)), np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows in _blocks(len(generated), len(real)):
        apart = distances(generated[rows], real)
        near[rows] = (apart <= reach).sum(axis=1)
        covered |= (apart <= reach).any(axis=0)
        recalled |= (apart <= own_reach[rows, None]).any(axis=0)
    return Manifolds(
        (near > 0).astype(np.float64), recalled.astype(np.float64), near / neighbours, covered.astype(np.float64)
    )


def distances(a: Array, b: Array) -> Floats:
    """Euclidean distances, (n, m)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * x @ y.T
    found: Floats = np.sqrt(np.maximum(squares, 0))
    return found


def _reach(features: Array, neighbours: int) -> Floats:
    """The distance of each picture to its k-th neighbour, itself not counted."""
    found = np.empty(len(features))
    for rows in _blocks(len(features), len(features)):
        apart = distances(features[rows], features)
        np.fill_diagonal(apart[:, rows], 0)
        found[rows] = np.partition(apart, neighbours, axis=1)[:, neighbours]
    return found


def _blocks(count: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
