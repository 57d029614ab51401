"""Exact and near duplicates. Near duplicates: MinHash with banded locality-sensitive hashing (Broder 1997; Leskovec,
Rajaraman & Ullman, Mining of Massive Datasets, ch. 3), every candidate verified by the exact Jaccard similarity.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from flywheel.record import Dropped, Record, content

THRESHOLD = 0.8
"""Jaccard similarity from which two texts count as near duplicates across the border of a split."""
PERMUTATIONS = 128
WORDS = 5
"""Words in a shingle."""
MISSED = 1e-4
"""Probability at most, over hash functions, that a pair exactly at the threshold is not compared."""

Hashes = NDArray[np.uint64]

# Scripts that are written without spaces give one word for each character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_CHUNK = 2_048
_MULTIPLIERS, _OFFSETS = np.random.Generator(np.random.PCG64(0x5EED)).integers(
    0, 2**64, size=(2, PERMUTATIONS), dtype=np.uint64
) | np.array([[1], [0]], dtype=np.uint64)


def exact(rows: Iterable[Record]) -> Iterator[Record | Dropped]:
    """Drop every row whose content (text or bytes, not its label) was there before: `exact_duplicate`."""
    seen: set[bytes] = set()
    for row in rows:
        digest = xxhash.xxh3_128_digest(content(row))
        if digest in seen:
            yield Dropped(row.id, "exact_duplicate", str(row.origin.get("path", "")))
        else:
            seen.add(digest)
            yield row


def near(rows: Iterable[Record], threshold: float) -> Iterator[Record | Dropped]:
    """Drop every text that is at least `threshold` similar to an earlier kept one: `near_duplicate`.

    Rows without words, such as pictures, pass.
    """
    index = Index(threshold)
    for row in rows:
        found = shingles(row)
        if index.holds_similar(found):
            yield Dropped(row.id, "near_duplicate", str(row.origin.get("path", "")))
        else:
            index.add(found)
            yield row


def apart(train: Iterable[Record], heldout: Iterable[Record]) -> Iterator[Record | Dropped]:
    """Drop every training row that equals a held-out row or is nearly the same: `near_heldout`.

    A leak would flatter the evaluation, while a training row less costs next to nothing.
    """
    index, exactly = Index(THRESHOLD), set()
    for row in heldout:
        exactly.add(content(row))
        index.add(shingles(row))
    for row in train:
        if content(row) in exactly or index.holds_similar(shingles(row)):
            yield Dropped(row.id, "near_heldout", str(row.origin.get("path", "")))
        else:
            yield row


def shingles(row: Record) -> Hashes:
    """Sorted distinct hashes of all runs of WORDS consecutive words of a row's text, shape (shingles,)."""
    text = " ".join(part for part in (row.text, row.prompt, row.completion) if part)
    words = np.array([_word_hash(word) for word in _WORD.findall(text)], dtype=np.uint64)
    size = min(WORDS, len(words))
    runs = np.zeros(len(words) - size + 1 if size else 0, dtype=np.uint64)
    for offset in range(size):
        runs = _mixed(runs + words[offset : offset + len(runs)])
    return np.unique(runs)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Size of the intersection over size of the union of two sets of shingles, 0 to 1; two empty sets give 0."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(1, len(a) + len(b) - common)


class Index:
    """Sets of shingles in which sets at least `threshold` similar (0 to 1) to a given one are found."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.rows_per_band = threshold, _rows_per_band(threshold)
        self.bands = PERMUTATIONS // self.rows_per_band
        self._sets: list[Hashes] = []
        self._buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
        self._last: tuple[Hashes, list[tuple[int, bytes]]] | None = None

    def add(self, found: Hashes) -> None:
        for key in self._keys(found):
            self._buckets[key].append(len(self._sets))
        self._sets.append(found)

    def holds_similar(self, found: Hashes) -> bool:
        candidates = {i for key in self._keys(found) for i in self._buckets.get(key, ())}
        return any(self._similar(found, self._sets[i]) for i in sorted(candidates))

    def _similar(self, a: Hashes, b: Hashes) -> bool:
        if min(len(a), len(b)) < self.threshold * max(len(a), len(b)):
            return False
        return jaccard(a, b) >= self.threshold

    def _keys(self, found: Hashes) -> list[tuple[int, bytes]]:
        """One bucket for each band; the last answer is kept because `add` follows `holds_similar`."""
        if self._last is not None and self._last[0] is found:
            return self._last[1]
        signature, size = _signature(found), self.rows_per_band
        keys = [(band, signature[band * size : (band + 1) * size].tobytes()) for band in range(self.bands)]
        self._last = (found, keys if len(found) else [])
        return self._last[1]


def _rows_per_band(threshold: float) -> int:
    """The largest band that misses a pair at the threshold with probability MISSED at most."""
    fits = (r for r in range(16, 1, -1) if (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED)
    return next(fits, 1)


def _signature(found: Hashes) -> Hashes:
    """MinHash signature, shape (PERMUTATIONS,)."""
    lowest = np.full(PERMUTATIONS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(found), _CHUNK):
        permuted = found[None, start : start + _CHUNK] * _MULTIPLIERS[:, None] + _OFFSETS[:, None]
        np.minimum(lowest, permuted.min(axis=1), out=lowest)
    return lowest


def _mixed(hashes: Hashes) -> Hashes:
    """A bijection that spreads every bit (the finalizer of splitmix64, Steele, Lea & Flood 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


@lru_cache(maxsize=1 << 17)
def _word_hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode())
