"""Bag of words and TF-IDF: scikit-learn chooses and weighs the words, numpy alone counts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flywheel.features.base import Vectors, read_json_names, text, unfit, unit, words, write_json_names
from flywheel.recipe_features import BagOfWords, Tfidf
from flywheel.record import Record


@dataclass(frozen=True)
class Bag:
    """A vocabulary, and for TF-IDF a weight for each word."""

    config: BagOfWords | Tfidf
    vocabulary: dict[str, int]
    idf: Vectors | None
    """Shape (width,)."""

    @property
    def width(self) -> int:
        return len(self.vocabulary)

    def transform(self, rows: Sequence[Record]) -> Vectors:
        """Counts, or TF-IDF of length 1 (zeros for a row without a known word), shape (rows, width)."""
        counts = np.zeros((len(rows), self.width), dtype=np.float32)
        for number, row in enumerate(rows):
            known = [column for term in self._terms(text(row)) if (column := self.vocabulary.get(term)) is not None]
            counts[number] = np.bincount(np.array(known, dtype=np.intp), minlength=self.width)
        if self.idf is None:
            return counts
        if isinstance(self.config, Tfidf) and self.config.sublinear_tf:
            counts = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0)
        return unit(counts * self.idf)

    def _terms(self, value: str) -> list[str]:
        found = words(value.lower() if self.config.lowercase else value)
        shortest, longest = self.config.ngram_range
        return [
            " ".join(found[at : at + size])
            for size in range(shortest, longest + 1)
            for at in range(len(found) - size + 1)
        ]

    def save(self, directory: Path) -> None:
        write_json_names(directory / "vocabulary.json", list(self.vocabulary))
        if self.idf is not None:
            np.save(directory / "idf.npy", self.idf, allow_pickle=False)


def fit(rows: Iterable[Record], config: BagOfWords | Tfidf) -> Bag:
    """Choose the words. Raises SourceError where none is frequent enough."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    common = config.model_dump(include={"max_features", "min_df", "max_df", "ngram_range", "lowercase"})
    learner = (
        TfidfVectorizer(**common, sublinear_tf=config.sublinear_tf)
        if isinstance(config, Tfidf)
        else CountVectorizer(**common)
    )
    try:
        learner.fit(text(row) for row in rows)
    except ValueError as error:
        raise unfit(config.type, str(error), "lower `min_df`, raise `max_df`, or read more text") from error
    vocabulary = {str(term): column for column, term in enumerate(learner.get_feature_names_out())}
    return Bag(config, vocabulary, learner.idf_.astype(np.float32) if isinstance(config, Tfidf) else None)


def load(directory: Path, config: BagOfWords | Tfidf) -> Bag:
    """Read back what `save` wrote; needs no scikit-learn."""
    idf = np.load(directory / "idf.npy", allow_pickle=False) if isinstance(config, Tfidf) else None
    return Bag(config, read_json_names(directory / "vocabulary.json"), idf)
