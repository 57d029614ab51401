"""How much answers mean the same as their references, by an encoder that the recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from flywheel.errors import RecipeError
from flywheel.metrics import examples
from flywheel.metrics.base import Exam
from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.scores import Floats, Scores
from flywheel.recipe_features import Embeddings
from flywheel.record import Record

Positive = Annotated[int, Field(ge=1)]


def embedding_similarity(
    exam: Exam, *, model: str, max_length: Positive = 256, batch_size: Positive = 16
) -> list[Metric]:
    """`embedding_similarity`: mean cosine of greedy answers and references, -1 to 1.

    `model` is a directory or hub id of an encoder; a text is the mean of its last hidden states over at most
    `max_length` tokens. Where the zero lies and what is much depends on the encoder. Raises RecipeError for one that
    cannot be opened.
    """
    found = examples.greedy(exam, "embedding_similarity")
    config = Embeddings(type="embeddings", model=model, max_length=max_length, batch_size=batch_size)
    values = cosines(found.given, found.references, config)
    detail = {"model": model, "pooling": "mean", "max_length": max_length, "examples": len(values)}
    scores = Scores(np.stack([values, np.ones_like(values)], axis=1))
    return [from_scores("embedding_similarity", "higher", scores, exam.seed, detail=detail)]


def cosines(answers: Sequence[str], references: Sequence[str], config: Embeddings) -> Floats:
    """Cosine of each answer and its reference, (answers,); 0 where one of them is blank."""
    from flywheel.features import embeddings

    try:
        encoder = embeddings.fit([], config)
    except RecipeError as error:
        raise RecipeError(
            f"evaluate.metrics: embedding_similarity.model {config.model}",
            found=error.found,
            expected="a directory or hub id with config.json, model.safetensors and a tokenizer",
            remedy="correct `model`",
        ) from error
    given, wanted = (encoder.transform([Record("", text=t) for t in texts]) for texts in (answers, references))
    found: Floats = (given.astype(np.float64) * wanted).sum(axis=1)
    return found
