"""Metrics of pictures that a recipe may name: distances by a network of its choice, CLIP score, memorised pictures.

Where no network is named, the room's own classifier looks at the pictures, and the names say so (`classifier_...`). No
name says FID, KID or Inception: which network it was stands in `detail`. `detail` also has the same figure for training
pictures against the held-out ones (`real`), the best that can be hoped for, and for uniform noise (`noise`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flywheel.errors import RecipeError
from flywheel.metrics import image
from flywheel.metrics.base import Exam, Painter
from flywheel.metrics.distances import distances, frechet, inception_of, kernel, manifolds
from flywheel.metrics.extractors import open_classifier, open_clip, open_extractor
from flywheel.metrics.metric import Better, Metric, from_scores
from flywheel.metrics.scores import Floats, Scores
from flywheel.record import Record

Array = NDArray[Any]
See = Callable[[Array], Array]

JUDGE = "the model's own classifier"
"""How `detail` names the room's judge."""
TRAIN_BATCH = 1024
"""Training pictures that are decoded at a time."""
SHOWN_PAIRS = 10
"""Pairs of a generated picture and its nearest training picture that `detail` lists."""


class Drawn(NamedTuple):
    """The pictures of an evaluation."""

    rows: list[Record]
    """Whose labels were drawn: the held-out rows, evenly spaced or over again."""
    generated: Array
    """A picture for each of them."""
    real: Array
    """Pictures of all held-out rows."""


class Features(NamedTuple):
    """Features of the pictures of an evaluation, each (pictures, width)."""

    generated: Floats
    real: Floats
    train: Floats
    """As many as are held out, or as there are."""
    noise: Floats
    """As many as are held out."""


# ---------------------------------------------------------------- what a recipe may name


def frechet_distance(exam: Exam, *, extractor: str) -> list[Metric]:
    """`frechet_distance` of generated to held-out pictures (Heusel et al. 2017) by the features of `extractor`.

    Comparable only with figures of the same extractor and about as many pictures. The room measures
    `classifier_frechet_distance` by itself.
    """
    drawn = _drawn(exam)
    found = _features(exam, drawn, open_extractor(extractor).features)
    labels = np.unique([row.label or "" for row in drawn.rows], return_inverse=True)[1]
    metric = image.frechet_distance("frechet_distance", found.generated, labels, found.real, exam.seed)
    rivals = {"real": frechet(found.train, found.real), "noise": frechet(found.noise, found.real)}
    scores = image.frechet_scores(found.generated, found.real)
    return [replace(metric, detail=_detail(extractor, drawn, rivals), scores=scores)]


def kernel_distance(exam: Exam, *, extractor: str | None = None) -> list[Metric]:
    """`kernel_distance` of generated to held-out pictures: KID's estimator (Bińkowski et al. 2018) over all pairs.

    Unbiased, so that few pictures do; by the features of `extractor`, or `classifier_kernel_distance` by those of the
    room's classifier.
    """
    drawn = _drawn(exam)
    found = _features(exam, drawn, _sight(exam, extractor))
    rivals = {"real": kernel(found.train, found.real), "noise": kernel(found.noise, found.real)}
    scores = Scores(found.generated, "kernel", fixed=found.real)
    name, detail = _named("kernel_distance", extractor), _detail(extractor, drawn, rivals)
    return [from_scores(name, "lower", scores, exam.seed, detail=detail)]


def precision_recall(
    exam: Exam, *, extractor: str | None = None, neighbours: Annotated[int, Field(ge=1)] = 3
) -> list[Metric]:
    """`precision` and `recall` (Kynkäänniemi et al. 2019), `density` and `coverage` (Naeem et al. 2020).

    Precision and density say how many generated pictures look real, recall and coverage how much of what is real is
    generated; by the features of `extractor`, or `classifier_...` by the room's own. `neighbours` is the papers' k.
    """
    drawn = _drawn(exam)
    found = _features(exam, drawn, _sight(exam, extractor))
    fewest = min(map(len, found))
    if fewest <= neighbours:
        raise RecipeError(
            "evaluate.metrics: precision_recall",
            found=f"{neighbours} neighbours among {fewest} pictures",
            expected="fewer neighbours than pictures",
            remedy="lower `neighbours`, or raise `evaluate.num_samples` or the held-out share",
        )
    own, real, noise = (manifolds(some, found.real, neighbours) for some in (found.generated, found.train, found.noise))
    metrics = []
    for kind in own._fields:
        rivals = {"real": float(getattr(real, kind).mean()), "noise": float(getattr(noise, kind).mean())}
        detail = {**_detail(extractor, drawn, rivals), "neighbours": neighbours}
        unit = "" if kind == "density" else "share"
        metrics.append(_mean(_named(kind, extractor), "higher", getattr(own, kind), exam.seed, unit, detail))
    return metrics


def classifier_score(exam: Exam, *, classifier: str | None = None) -> list[Metric]:
    """`classifier_score` of generated pictures: the inception score (Salimans et al. 2016) by another classifier.

    From 1 to the number of classes of `classifier`, or of the room's own; high where each picture has a clear class and
    all classes come up. It does not look at real pictures.
    """
    drawn = _drawn(exam)
    sees = open_classifier(classifier).probabilities if classifier else _painter(exam).judge.probabilities
    found = _features(exam, drawn, sees)
    rivals = {
        name: float(inception_of(some, np.ones((1, len(some))))[0])
        for name, some in (("real", found.real), ("noise", found.noise))
    }
    scores, detail = Scores(found.generated, "inception"), _detail(classifier, drawn, rivals)
    return [from_scores("classifier_score", "higher", scores, exam.seed, detail=detail)]


def clip_score(
    exam: Exam, *, extractor: str, template: Annotated[str, Field(pattern=r"\{\}")] = "a photo of a {}"
) -> list[Metric]:
    """`clip_score` of generated pictures (Hessel et al. 2021, with weight 100), 0 to 100: how they fit their texts.

    A text is the row's `text` or `prompt` or, where it has none, its label in place of the `{}` of `template`.
    """
    drawn, clip = _drawn(exam), open_clip(extractor)
    texts = [row.text or row.prompt or template.replace("{}", row.label or "") for row in drawn.rows]
    known, places = np.unique(texts, return_inverse=True)
    encoded = clip.texts(known.tolist())[places]
    noise = np.random.default_rng(exam.seed).random(drawn.generated.shape, dtype=np.float32)
    looked_at = {"own": drawn.generated, "real": _painter(exam).real(drawn.rows), "noise": noise}
    fits = {name: agreement(clip.features(pictures), encoded) for name, pictures in looked_at.items()}
    detail = _detail(extractor, drawn, {name: float(fits[name].mean()) for name in ("real", "noise")})
    return [_mean("clip_score", "higher", fits["own"], exam.seed, "points of 100", {**detail, "template": template})]


def memorisation(
    exam: Exam, *, extractor: str | None = None, percentile: Annotated[float, Field(gt=0, lt=100)] = 1.0
) -> list[Metric]:
    """`memorised_share` of generated pictures that are as near to a training picture as hardly a new one is.

    Near is what lies within the `percentile` of the distances from held-out pictures to their nearest training picture,
    so of new pictures about `percentile` % count (`expected` in `detail`). Distances are between pixels, or features of
    `extractor`. `detail` lists the nearest pairs; blurred pictures are near to many, so look at these first.
    """
    drawn, painter = _drawn(exam), _painter(exam)
    see = open_extractor(extractor).features if extractor else _pixels
    starts = range(0, len(exam.train), TRAIN_BATCH)
    batches = (see(painter.real(exam.train[start : start + TRAIN_BATCH])) for start in starts)
    places, apart = nearest(np.concatenate([see(drawn.generated), see(drawn.real)]), batches)
    count = len(drawn.generated)
    limit = float(np.percentile(apart[count:], percentile))
    order = np.argsort(apart[:count], kind="stable")[:SHOWN_PAIRS]
    pairs = [
        {"picture": int(i), "row": drawn.rows[i].id, "train": exam.train[places[i]].id, "distance": float(apart[i])}
        for i in order
    ]
    detail = {
        "extractor": extractor or "pixels",
        "pictures": count,
        "train_pictures": len(exam.train),
        "limit": limit,
        "expected": percentile / 100,
        "nearest": pairs,
    }
    near = (apart[:count] <= limit).astype(np.float64)
    return [_mean("memorised_share", "lower", near, exam.seed, "share", detail)]


# ---------------------------------------------------------------- arrays in, arrays out


def agreement(pictures: Array, texts: Array) -> Floats:
    """100 times the cosine of each picture's features (n, width) and its text's, or 0 where that is below 0: (n,)."""
    lengths = np.linalg.norm(pictures, axis=1) * np.linalg.norm(texts, axis=1)
    found: Floats = 100 * np.maximum((pictures * texts).sum(axis=1) / np.maximum(lengths, 1e-12), 0)
    return found


def nearest(queries: Array, batches: Iterable[Array]) -> tuple[NDArray[np.int64], Floats]:
    """Place of the nearest of all rows of all batches, and its Euclidean distance, for each query (n, width)."""
    places, apart, seen = np.zeros(len(queries), np.int64), np.full(len(queries), np.inf), 0
    for batch in batches:
        closest = distances(queries, batch).argmin(axis=1)
        # Measured again, as the fast way to all distances does not give 0 for a copy.
        exact = np.linalg.norm(queries.astype(np.float64) - batch[closest], axis=1)
        nearer = exact < apart
        places[nearer], apart[nearer] = seen + closest[nearer], exact[nearer]
        seen += len(batch)
    return places, apart


# ---------------------------------------------------------------- pictures of an exam


def _painter(exam: Exam) -> Painter:
    if exam.painter is None:
        raise RecipeError(
            "evaluate.metrics",
            found="a model that draws no pictures",
            expected="a model of pictures",
            remedy="leave metrics of pictures out",
        )
    return exam.painter


def _drawn(exam: Exam) -> Drawn:
    painter, heldout, count = _painter(exam), exam.heldout, exam.num_samples
    rows = [heldout[i * len(heldout) // count] for i in range(count)]
    return Drawn(rows, painter.pictures(rows, exam.sampling)[0], painter.real(heldout))


def _features(exam: Exam, drawn: Drawn, see: See) -> Features:
    """What `see` makes of generated, real and training pictures and of noise."""
    rng = np.random.default_rng(exam.seed)
    some = np.sort(rng.permutation(len(exam.train))[: len(drawn.real)])
    train = _painter(exam).real([exam.train[i] for i in some])
    noise = rng.random(drawn.real.shape, dtype=np.float32)
    return Features(*(see(pictures).astype(np.float64) for pictures in (drawn.generated, drawn.real, train, noise)))


def _sight(exam: Exam, extractor: str | None) -> See:
    return open_extractor(extractor).features if extractor else _painter(exam).judge.features


def _named(name: str, extractor: str | None) -> str:
    return name if extractor else f"classifier_{name}"


def _pixels(pictures: Array) -> Array:
    return pictures.reshape(len(pictures), -1)


def _detail(extractor: str | None, drawn: Drawn, rivals: Mapping[str, float]) -> dict[str, Any]:
    return {
        "extractor": extractor or JUDGE,
        "pictures": len(drawn.generated),
        "heldout_pictures": len(drawn.real),
        **rivals,
    }


def _mean(name: str, better: Better, values: Floats, seed: int, unit: str, detail: Mapping[str, Any]) -> Metric:
    scores = Scores(np.stack([values, np.ones_like(values)], axis=1))
    return from_scores(name, better, scores, seed, unit=unit, detail=detail)
