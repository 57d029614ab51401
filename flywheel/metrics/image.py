"""Metrics of pictures, judged by a small classifier that is trained on the labels of the training rows.

No Inception network is bundled, so nothing here is FID or an Inception score: the distance is
`classifier_frechet_distance`, and it means something only beside its floor (real against real) and ceiling (noise).
What else a recipe may name is in flywheel.metrics.pictures.
Pictures are (n, channels, height, width) in [0, 1]; class ids are (n,) integers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.metrics.distances import frechet, frechet_of
from flywheel.metrics.metric import Metric, bootstrap_mean
from flywheel.metrics.scores import Scores

Array = NDArray[Any]

HIDDEN = 64
"""Units of the classifier's hidden layer, which are the features: few enough that some hundred pictures fit them."""
EPOCHS = 60
REFERENCE = 4096
"""Training pictures whose features are kept, for the floor of the distance."""
RESAMPLES = 200
COMPARED = 128
"""The widest features whose distance is compared picture by picture: the time of a permutation test grows with the
cube of the width."""
GAUSSIAN_BLOCKS = 8


@dataclass(frozen=True)
class Judge:
    """A multi-layer perceptron on pixels with one hidden layer, and features of training pictures for comparison."""

    hidden: tuple[Array, Array]
    """Weights (pixels, 64) and bias (64,)."""
    output: tuple[Array, Array]
    """Weights (64, classes) and bias (classes,)."""
    reference: tuple[Array, Array]
    """Features (n, 64) and class ids (n,) of training pictures."""

    @classmethod
    def fit(cls, pictures: Array, ids: Array, seed: int) -> Judge:
        """Train with scikit-learn on at least two classes, numbered from 0. Deterministic for equal arguments."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        size = min(64, len(ids))
        network = MLPClassifier(
            HIDDEN, alpha=1e-3, batch_size=size, learning_rate_init=2e-3, max_iter=EPOCHS, n_iter_no_change=EPOCHS,
            random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed on purpose
            network.fit(_flat(pictures), ids)
        layers = zip(network.coefs_, network.intercepts_, strict=True)
        hidden, output = ((w.astype(np.float32), b.astype(np.float32)) for w, b in layers)
        if len(network.classes_) == 2:  # scikit-learn gives two classes one output
            output = np.pad(output[0], ((0, 0), (1, 0))), np.pad(output[1], (1, 0))
        kept = np.sort(np.random.default_rng(seed).permutation(len(ids))[:REFERENCE])
        return cls(hidden, output, (_hidden(hidden, pictures[kept]), ids[kept]))

    def features(self, pictures: Array) -> Array:
        """Activations of the hidden layer, (n, 64)."""
        return _hidden(self.hidden, pictures)

    def predict(self, pictures: Array) -> Array:
        """Class ids, (n,)."""
        ids: Array = np.argmax(self.features(pictures) @ self.output[0] + self.output[1], axis=1)
        return ids

    def probabilities(self, pictures: Array) -> Array:
        """Of each class, (n, classes) float64."""
        logits = (self.features(pictures) @ self.output[0] + self.output[1]).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Array = odds / odds.sum(axis=1, keepdims=True)
        return shares

    def save(self, path: Path) -> None:
        """Write all arrays as safetensors."""
        from safetensors.numpy import save_file

        save_file({f"{name}.{i}": a for name in PARTS for i, a in enumerate(getattr(self, name))}, path)

    @classmethod
    def load(cls, path: Path) -> Judge:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        named = load_file(path)
        return cls(**{name: (named[f"{name}.0"], named[f"{name}.1"]) for name in PARTS})


PARTS = ("hidden", "output", "reference")


def gaussian_pictures(train: tuple[Array, Array], ids: Array, seed: int) -> Array:
    """The simple generative model to beat: a Gaussian with full covariance on the pixels of each class, clipped.

    Fitted by maximum likelihood to the training (pictures, class ids); one picture is drawn for each of `ids`.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((len(ids), *train[0].shape[1:]), np.float32)
    for c in np.unique(ids):
        rows = train[0][train[1] == c]
        mean = rows.mean(axis=0)
        # Centred rows, mixed with independent normal weights, have exactly the covariance of the rows.
        weights = rng.standard_normal((int((ids == c).sum()), len(rows)), dtype=np.float32) / np.sqrt(len(rows))
        drawn[ids == c] = mean + np.tensordot(weights.astype(np.float32), rows - mean, axes=1)
    return np.clip(drawn, 0, 1)


def frechet_distance(name: str, features: Array, ids: Array, real: Array, seed: int = 0) -> Metric:
    """`frechet` of features (n, d) of pictures with class ids (n,) to real features (m, d), with a 95 % interval.

    The estimate falls as pictures grow in number, so the value is the mean over blocks of about m pictures, each with
    all classes. The bootstrap redraws the pictures of each class; the real ones stay, as they are the same for
    everything that is compared. Redrawing repeats pictures, which raises every distance; the interval is therefore the
    spread of the redrawn distances around their median, laid around the value.
    """
    rng = np.random.default_rng(seed)
    blocks = max(1, round(len(features) / len(real)))
    order = np.argsort(ids, kind="stable")
    parts = [(features[order[b::blocks]], ids[order[b::blocks]]) for b in range(blocks)]
    value = float(np.mean([frechet(f, real) for f, _ in parts]))
    picks = [[_resample(i, rng) for _, i in parts] for _ in range(RESAMPLES)]
    weights = (np.stack([np.bincount(p, minlength=len(p)) for p in block]) for block in zip(*picks, strict=True))
    pairs = zip(parts, weights, strict=True)
    draws = np.mean([frechet_of(f, w.astype(np.float64), real) for (f, _), w in pairs], axis=0)
    low, middle, high = np.percentile(draws, [2.5, 50, 97.5])
    low, high = max(0.0, value + float(low - middle)), value + float(high - middle)
    return Metric(name, value, low, high, "lower")


def frechet_scores(features: Array, real: Array) -> Scores | None:
    """What the comparison with a champion on the same prompts needs; none for features wider than `COMPARED`."""
    if features.shape[1] > COMPARED:
        return None
    return Scores(features.astype(np.float64), "frechet", fixed=real.astype(np.float64))


def score(judge: Judge, generated: tuple[Array, Array], real: tuple[Array, Array], seed: int = 0) -> list[Metric]:
    """All metrics of generated (pictures, class ids) beside real, held-out ones.

    `label_accuracy`, the share of generated pictures that the judge takes for what they should be, stands beside
    `real_label_accuracy`, its ceiling. `classifier_frechet_distance` stands beside the same distance for as many
    training pictures, or as there are (`real_`, the floor), and for pictures of uniform noise (`noise_`).
    """
    rng = np.random.default_rng(seed)
    (pictures, ids), (real_pictures, real_ids) = generated, real
    floor = _matching(ids, judge.reference[1], rng)
    noise = rng.random(real_pictures.shape, dtype=np.float32)
    rivals = {
        "": (judge.features(pictures), ids),
        "real_": (judge.reference[0][floor], judge.reference[1][floor]),
        "noise_": (judge.features(noise), real_ids),
    }
    real_features = judge.features(real_pictures)
    distances = [
        frechet_distance(f"{prefix}classifier_frechet_distance", f, i, real_features, seed)
        for prefix, (f, i) in rivals.items()
    ]
    distances[0] = replace(distances[0], scores=frechet_scores(rivals[""][0], real_features))
    return [
        bootstrap_mean("label_accuracy", "higher", _hits(judge, pictures, ids), seed),
        replace(bootstrap_mean("real_label_accuracy", "higher", _hits(judge, real_pictures, real_ids)), scores=None),
        *distances,
    ]


def gaussian_baseline(judge: Judge, train: tuple[Array, Array], real: tuple[Array, Array]) -> dict[str, float]:
    """The two metrics for `gaussian_pictures`: means of 8 blocks of as many pictures as are held out."""
    real_pictures, real_ids = real
    target = judge.features(real_pictures)
    draws = [gaussian_pictures(train, real_ids, seed) for seed in range(GAUSSIAN_BLOCKS)]
    return {
        "label_accuracy": float(np.mean([judge.predict(d) == real_ids for d in draws])),
        "classifier_frechet_distance": float(np.mean([frechet(judge.features(d), target) for d in draws])),
    }


def _hits(judge: Judge, pictures: Array, ids: Array) -> NDArray[np.float64]:
    hits: NDArray[np.float64] = (judge.predict(pictures) == ids).astype(np.float64)
    return hits


def _resample(ids: Array, rng: np.random.Generator) -> Array:
    """Positions drawn with replacement, as many from each class as it has."""
    order, counts = np.argsort(ids, kind="stable"), np.bincount(ids)
    starts = np.cumsum(counts) - counts
    ordered = ids[order]
    drawn: Array = order[starts[ordered] + (rng.random(len(ids)) * counts[ordered]).astype(np.int64)]
    return drawn


def _matching(wanted: Array, ids: Array, rng: np.random.Generator) -> Array:
    """Positions in `ids`, drawn without replacement: as many of each class as `wanted` has, or as there are."""
    counts = np.bincount(wanted, minlength=int(ids.max()) + 1)
    return np.concatenate([rng.permutation(np.flatnonzero(ids == c))[:n] for c, n in enumerate(counts)])


def _hidden(layer: tuple[Array, Array], pictures: Array) -> Array:
    active: Array = np.maximum(_flat(pictures) @ layer[0] + layer[1], 0)
    return active


def _flat(pictures: Array) -> Array:
    return pictures.reshape(len(pictures), -1)
