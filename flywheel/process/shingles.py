"""Words, runs of words and MinHash signatures of many texts at once, as numpy arrays.

A word is a maximal run of letters, marks, digits and underscores, in lower case; in scripts that are written without
spaces each character is one. The same text gives the same numbers on every machine, whatever stands beside it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WORDS = 5
"""Words in a shingle."""
PERMUTATIONS = 80
"""Length of a signature."""

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]
Shingles = NDArray[np.uint32]

_PIECE = 1 << 18
"""Characters that are looked at together, so that the arrays stay in the cache and a long text needs no more memory."""
UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7AF))
"""Thai and Lao, Burmese, Khmer, kana, Han, Hangul; Han also fills the planes from U+20000."""
_ALONE, _ASTRAL = 1 << 31, 0x20000
_BASE, _STEP = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_MULTIPLIERS = np.random.Generator(np.random.PCG64(0x5EED)).integers(
    0, 2**32, size=PERMUTATIONS, dtype=np.uint32
) | np.uint32(1)


def words(texts: Sequence[str]) -> tuple[Hashes, Counts]:
    """Hashes of the words of all texts in order, shape (words,), and the number of words of each, shape (texts,)."""
    pieces = [(n, text[at : at + _PIECE]) for n, text in enumerate(texts) for at in range(0, len(text), _PIECE)]
    counts, found = np.zeros(len(texts), np.int64), []
    for batch in _batches(pieces):
        hashes, sizes = _words([piece for _, piece in batch])
        np.add.at(counts, [n for n, _ in batch], sizes)
        found.append(hashes)
    return np.concatenate([*found, np.empty(0, np.uint64)]), counts


def grams(hashes: Hashes, counts: Counts, size: int) -> tuple[Hashes, Counts]:
    """Hashes of all runs of `size` words within each text, in order, and their number for each text.

    A text of fewer words gives one, of all its words, that equals no part of a longer text; one without words, none.
    """
    first, gap = np.cumsum(counts) - counts, np.arange(len(counts)) * (size - 1)
    padded = np.zeros(len(hashes) + size * (len(counts) + 1), np.uint64)
    padded[np.arange(len(hashes)) + np.repeat(gap, counts)] = hashes
    runs = padded[: len(padded) - size + 1].copy()
    for offset in range(1, size):
        runs *= np.uint64(_STEP)
        runs += padded[offset : offset + len(runs)]
    numbers = np.where(counts > 0, np.maximum(counts - size + 1, 1), 0)
    places = np.arange(numbers.sum()) + np.repeat(first + gap - (np.cumsum(numbers) - numbers), numbers)
    return mixed(runs[places]), numbers


def shingles(texts: Sequence[str]) -> tuple[Shingles, Counts]:
    """The set of shingles of each text: sorted distinct hashes, one text after the other, and the size of each set."""
    hashes, counts = grams(*words(texts), WORDS)
    keys = hashes >> np.uint64(32)
    keys |= np.repeat(np.arange(len(texts), dtype=np.uint64) << np.uint64(32), counts)
    keys.sort()
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    return keys.astype(np.uint32), np.bincount(keys >> np.uint64(32), minlength=len(texts))


def signatures(found: Shingles, sizes: Counts) -> NDArray[np.uint32]:
    """MinHash signatures (Broder 1997) of sets of shingles, shape (PERMUTATIONS, texts); of an empty set all ones."""
    lowest = np.full((PERMUTATIONS, len(sizes)), 0xFFFFFFFF, np.uint32)
    some = np.flatnonzero(sizes)
    if len(some):
        starts, permuted = (np.cumsum(sizes) - sizes)[some], np.empty_like(found)
        for place, multiplier in enumerate(_MULTIPLIERS):
            np.multiply(found, multiplier, out=permuted)
            lowest[place, some] = np.minimum.reduceat(permuted, starts)
    return lowest


def mixed(hashes: Hashes) -> Hashes:
    """A bijection that spreads every bit (the finalizer of splitmix64, Steele, Lea & Flood 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _batches(pieces: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Pieces in runs of at most twice _PIECE characters, a separator after each included."""
    start, held = 0, 0
    for end, (_, piece) in enumerate(pieces, start=1):
        held += len(piece) + 1
        if held >= _PIECE or end == len(pieces):
            yield pieces[start:end]
            start, held = end, 0


def _words(pieces: Sequence[str]) -> tuple[Hashes, Counts]:
    """A word's hash is the polynomial of its characters, taken from prefix sums: (sum to its end - to its start) / base
    to the power of its place, all modulo 2^64, where an odd base has an inverse.
    """
    characters = _characters("\0".join(pieces))
    inside = characters != 0
    joined = _joined(characters, inside)
    opens, closes = inside.copy(), inside
    opens[1:] &= ~joined
    closes[:-1] &= ~joined
    starts, ends = np.flatnonzero(opens), np.flatnonzero(closes)
    powers, inverses = _powers()
    sums = np.empty(len(characters) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(characters * powers[: len(characters)], out=sums[1:])
    hashes = (sums[ends + 1] - sums[starts]) * inverses[starts]
    borders = np.cumsum([len(piece) + 1 for piece in pieces])
    return mixed(hashes), np.diff(np.searchsorted(starts, borders), prepend=0)


def _characters(text: str) -> NDArray[np.uint8] | NDArray[np.uint32]:
    """Code points in lower case; 0 is no part of a word, and _ALONE marks a word of its own."""
    table, ascii_table = _tables()
    if text.isascii():
        return np.frombuffer(text.encode().translate(ascii_table), np.uint8)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    found: NDArray[np.uint32] = table.take(np.minimum(points, _ASTRAL))
    if (points >= _ASTRAL).any():
        han = (points >= _ASTRAL) & (points < 0x40000)
        found[han] = points[han] | np.uint32(_ALONE)
    return found


def _joined(characters: NDArray[np.uint8] | NDArray[np.uint32], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each character from the second on belongs to the same word as the one before it."""
    spaced = inside if characters.dtype == np.uint8 else inside & (characters < _ALONE)
    joined: NDArray[np.bool_] = spaced[1:] & spaced[:-1]
    return joined


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.uint32], bytes]:
    """What each code point below _ASTRAL counts as, and the same for bytes of ASCII; the last entry is for the rest."""
    table = np.zeros(_ASTRAL + 1, np.uint32)
    for point in range(_ASTRAL):
        category = unicodedata.category(chr(point))
        if category[0] in "LMN" or category == "Pc":
            lower = chr(point).lower()
            table[point] = ord(lower) if len(lower) == 1 else point
    for low, high in UNSPACED:
        part = table[low : high + 1]
        part[part != 0] |= np.uint32(_ALONE)
    return table, bytes(table[:128].astype(np.uint8)) + bytes(128)


@lru_cache(maxsize=1)
def _powers() -> tuple[Hashes, Hashes]:
    """The powers of the base and of its inverse modulo 2^64, for every place of a batch."""
    found = []
    for base in (_BASE, pow(_BASE, -1, 2**64)):
        factors = np.full(2 * _PIECE + 1, base, np.uint64)
        factors[0] = 1
        found.append(np.multiply.accumulate(factors))
    return found[0], found[1]
