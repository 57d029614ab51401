"""Word vectors (Mikolov et al. 2013), learnt by gensim; a row is the mean of its words, which needs numpy alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flywheel.features.base import Vectors, read_json_names, text, unfit, words, write_json_names
from flywheel.recipe_features import Word2Vec
from flywheel.record import Record

SENTENCE = 1_000
"""Words at a time; gensim silently cuts sentences at 10,000."""


@dataclass(frozen=True)
class WordVectors:
    """A vector for each word."""

    vocabulary: dict[str, int]
    vectors: Vectors
    """Shape (words, width)."""

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    def transform(self, rows: Sequence[Record]) -> Vectors:
        """The mean of the vectors of the known words; zeros for a row without any. Shape (rows, width)."""
        found = np.zeros((len(rows), self.width), dtype=np.float32)
        for number, row in enumerate(rows):
            known = [place for word in _words(row) if (place := self.vocabulary.get(word)) is not None]
            if known:
                found[number] = self.vectors[known].mean(axis=0)
        return found

    def save(self, directory: Path) -> None:
        write_json_names(directory / "vocabulary.json", list(self.vocabulary))
        np.save(directory / "vectors.npy", self.vectors, allow_pickle=False)


@dataclass(frozen=True)
class _Sentences:
    rows: Iterable[Record]

    def __iter__(self) -> Iterator[list[str]]:
        for row in self.rows:
            found = _words(row)
            yield from (found[at : at + SENTENCE] for at in range(0, len(found), SENTENCE))


def fit(rows: Iterable[Record], config: Word2Vec) -> WordVectors:
    """Learn the vectors, in one thread: equal rows give equal vectors. Raises SourceError where no word is frequent."""
    from gensim.models import Word2Vec as Learner

    arguments = config.model_dump(exclude={"type", "fit_rows"})
    try:
        learner = Learner(_Sentences(rows), workers=1, hashfxn=lambda word: zlib.crc32(word.encode()), **arguments)
    except RuntimeError as error:
        raise unfit(config.type, str(error), "lower `min_count`, or read more text") from error
    vocabulary = {word: place for place, word in enumerate(learner.wv.index_to_key)}
    return WordVectors(vocabulary, np.ascontiguousarray(learner.wv.vectors, dtype=np.float32))


def load(directory: Path, config: Word2Vec) -> WordVectors:
    """Read back what `save` wrote; needs no gensim."""
    vectors = np.load(directory / "vectors.npy", allow_pickle=False)
    return WordVectors(read_json_names(directory / "vocabulary.json"), vectors)


def _words(row: Record) -> list[str]:
    return words(text(row).lower())
