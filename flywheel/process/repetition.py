"""Texts that repeat themselves, by the rules of Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights
from Training Gopher", table A1. Values and reasons are datatrove's, so that counts compare.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flywheel.process.text import words
from flywheel.record import Outcomes, Record, drop, texts

Share = Annotated[float, Field(gt=0, le=1)]

TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
"""n, and share of characters that the most frequent n-gram may make up."""
REPEATED_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
"""n, and share of characters that repeated n-grams may make up."""

_PARAGRAPHS = re.compile("\n{2,}")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def repetition_filter(
    rows: Iterable[Record],
    lines: Share = 0.3,
    paragraphs: Share = 0.3,
    line_chars: Share = 0.2,
    paragraph_chars: Share = 0.2,
) -> Outcomes:
    """Drop texts that repeat themselves, by Gopher's rules.

    The arguments bound the share of lines and paragraphs that were there before, by number and by characters:
    `dup_para_frac`, `dup_para_char_frac`, `dup_line_frac`, `dup_line_char_frac`. Then the characters in the most
    frequent n-gram of words, `top_{2,3,4}_gram`, and in repeated ones, `duplicated_{5..10}_n_grams`.
    """
    for row in rows:
        text = "\n\n".join(texts(row))
        reason = (
            _repeated(_PARAGRAPHS.split(text.strip()), len(text), "dup_para", (paragraphs, paragraph_chars))
            or _repeated([line for line in text.split("\n") if line], len(text), "dup_line", (lines, line_chars))
            or repeated_ngrams(words(text), len(text))
        )
        yield drop(row, reason) if reason else row


def repeated_ngrams(found: Sequence[str], length: int) -> str:
    """Which rule about n-grams the words of a text of `length` characters break, or nothing.

    Hashes bound from above what is there twice; only where that does not settle it are the n-grams themselves counted.
    """
    sizes = np.fromiter(map(len, found), np.int64, len(found))
    hashes = np.fromiter(map(hash, found), np.int64, len(found)).view(np.uint64)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    grams = hashes
    for n in range(2, min(10, len(found) - 1) + 1):
        grams = grams[:-1] * _FACTOR + hashes[n - 1 :]
        ordered = np.sort(grams)
        same = ordered[1:] == ordered[:-1]
        repeats = int(np.count_nonzero(same))
        if not repeats:  # nor is a longer one there twice
            return ""
        longest = int((ends[n:] - ends[:-n]).max())
        if n <= 4:
            limit = TOP_NGRAMS[n - 2][1] * length
            if _longest_run(same) * (longest + n - 1) > limit and _top_ngram(found, n) > limit:
                return f"top_{n}_gram"
        else:
            limit = REPEATED_NGRAMS[n - 5][1] * length
            if (
                repeats * longest > limit
                and _covered(grams, same, sizes, n) > limit
                and _repeated_ngrams(found, n) > limit
            ):
                return f"duplicated_{n}_n_grams"
    return ""


def _longest_run(same: NDArray[np.bool_]) -> int:
    """How often the most frequent value is there, from where neighbours in order are the same."""
    breaks = np.concatenate([[-1], np.flatnonzero(~same), [len(same)]])
    return int((breaks[1:] - breaks[:-1]).max())


def _covered(grams: NDArray[np.uint64], same: NDArray[np.bool_], sizes: NDArray[np.int64], n: int) -> int:
    """Characters of all words in n-grams whose hash was there before."""
    again = np.argsort(grams, kind="stable")[1:][same]
    inside = np.zeros(len(sizes), np.bool_)
    for offset in range(n):
        inside[again + offset] = True
    return int(sizes[inside].sum())


def _top_ngram(found: Sequence[str], n: int) -> int:
    """Characters in all places of the most frequent n-gram; 0 where none is there twice."""
    counts = Counter(zip(*(found[offset:] for offset in range(n)), strict=False))
    ngram, count = counts.most_common(1)[0]
    return count * len(" ".join(ngram)) if count > 1 else 0


def _repeated_ngrams(found: Sequence[str], n: int) -> int:
    """Characters in n-grams that were there before, none of them counted twice."""
    seen: set[tuple[str, ...]] = set()
    position = characters = 0
    while position <= len(found) - n:
        ngram = tuple(found[position : position + n])
        if ngram in seen:
            characters += sum(map(len, ngram))
            position += n
        else:
            seen.add(ngram)
            position += 1
    return characters


def _repeated(parts: Sequence[str], length: int, reason: str, limits: tuple[float, float]) -> str:
    """Gopher's two rules about lines or paragraphs that were there before."""
    if len(set(parts)) == len(parts):
        return ""
    seen: set[str] = set()
    number = characters = 0
    for part in parts:
        if part in seen:
            number += 1
            characters += len(part)
        seen.add(part)
    if number > limits[0] * len(parts):
        return f"{reason}_frac"
    return f"{reason}_char_frac" if characters > limits[1] * length else ""
