"""Learning from text without answers: some spans are taken out of a text, and the decoder writes them.

Raffel et al. 2020 ("Exploring the limits of transfer learning", section 3.1.4; the segmentation is that of the authors'
`random_spans_noise_mask`): 15 % of the tokens in spans of 3 tokens on average, each replaced by a sentinel; the target
is every sentinel with what stood there. Where a tokenizer has a mask and no sentinels, text infilling (Lewis et al.
2020): 30 % of the tokens, each span replaced by one mask; the target is the whole text.

What is taken out depends on the tokens of a window alone: not on its place among the rows, and in every pass over them
it is the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

SPAN = 3
"""Mean length of a span in tokens."""
SENTINEL = "<extra_id_{}>"
_SENTINEL = re.compile(r"<extra_id_(\d+)>")


@dataclass(frozen=True)
class Corrupted:
    """One window: what the encoder reads, what the decoder writes, and which tokens were taken out."""

    source: Ids
    target: Ids
    hidden: Ids


@dataclass(frozen=True)
class Corruption:
    """How a tokenizer marks what was taken out."""

    markers: tuple[int, ...]
    """A token for each span, in their order; a single one stands for all of them."""
    density: float
    """Share of the tokens that are taken out."""
    infilling: bool
    """The target is the whole text."""

    @classmethod
    def of(cls, tokenizer: Any) -> Corruption | None:
        """That of T5 for a tokenizer with sentinels, else that of BART for one with a mask, else none."""
        found = ((_SENTINEL.fullmatch(token), i) for token, i in tokenizer.get_vocab().items())
        sentinels = sorted((int(match[1]), i) for match, i in found if match)
        if sentinels:
            return cls(tuple(i for _, i in sentinels), 0.15, infilling=False)
        if tokenizer.mask_token_id is not None:
            return cls((tokenizer.mask_token_id,), 0.3, infilling=True)
        return None

    def apply(self, ids: Ids) -> Corrupted:
        """Take spans out of a window of at least 2 tokens."""
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(ids.astype("<i8").tobytes()).digest()[:16], "big"))
        noise = min(max(round(len(ids) * self.density), 1), len(ids) - 1)
        most = noise if self.infilling else len(self.markers)
        count = max(1, min(round(noise / SPAN), len(ids) - noise, most))
        kept, taken = _segments(len(ids) - noise, count, rng), _segments(noise, count, rng)
        source: list[Ids] = []
        target: list[Ids] = []
        hidden: list[Ids] = []
        at = 0
        for number, (stays, goes) in enumerate(zip(kept, taken, strict=True)):
            marker = np.array([self.markers[0 if self.infilling else number]])
            span = ids[at + stays : at + stays + goes]
            source += [ids[at : at + stays], marker]
            target += [marker, span]
            hidden.append(span)
            at += stays + goes
        return Corrupted(*map(np.concatenate, (source, [ids] if self.infilling else target, hidden)))


def sentinels(longest: int) -> list[str]:
    """As many sentinels as a text of `longest` tokens needs."""
    return [SENTINEL.format(i) for i in range(ceil(longest * 0.15 / SPAN) + 1)]


def windows(ids: Ids, most: int) -> Sequence[Ids]:
    """A text cut into the fewest windows of at most `most` tokens, all of about the same length."""
    return np.array_split(ids, ceil(len(ids) / most)) if len(ids) else []


def _segments(items: int, count: int, rng: np.random.Generator) -> Ids:
    """Lengths of `count` non-empty segments of `items` items, every division equally likely."""
    cuts = np.sort(rng.choice(items - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))
