"""The n-gram baseline: interpolated modified Kneser-Ney over token ids.

Chen & Goodman (1999), "An empirical study of smoothing techniques for language modeling", with one discount for n-grams
seen once, twice, and three times or more at each order, and continuation counts below the highest order. A document's
start counts as one more left neighbour, so that every n-gram seen has a count at every order; below order one stands
the uniform distribution, so that every token of the vocabulary has mass.

Not covered: pruning and interpolation weights tuned on held-out text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Level:
    """The n-grams of one order. An n-gram's number is its rank in `keys`; order zero has the single n-gram 0."""

    keys: Ints
    """Sorted, shape (ngrams,): number of the first n - 1 tokens * vocab_size + last token."""
    share: Floats
    """Discounted share of each n-gram among those of its context, shape (ngrams,)."""
    backoff: Floats
    """Mass that each context leaves to the shorter one, shape (ngrams of order n - 1,); 1 where nothing followed it."""


def bits(
    train: Sequence[Sequence[int]], heldout: Sequence[Sequence[int]], vocab_size: int, order: int = 5
) -> NDArray[np.float64]:
    """Total bits of each held-out document under the model fitted to `train`, shape (len(heldout),).

    Documents are token ids in [0, vocab_size) and independent of each other: the first tokens of each are predicted
    from the shorter contexts there are. Raises ValueError for an id outside the vocabulary.
    """
    tokens, places = _flatten(heldout, vocab_size)
    probability = np.full(len(tokens), 1.0 / vocab_size)
    context = np.zeros(len(tokens), np.int64)  # number of the n - 1 tokens before each token; -1: unseen or no such
    for level in _levels(*_flatten(train, vocab_size), vocab_size, order):
        at = np.flatnonzero(context >= 0)
        keys = context[at] * vocab_size + tokens[at]
        rank = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
        found = level.keys[rank] == keys
        probability[at] = np.where(found, level.share[rank], 0.0) + level.backoff[context[at]] * probability[at]
        ngram = np.full(len(tokens), -1, np.int64)
        ngram[at[found]] = rank[found]
        context = _before(ngram, places)
    document = np.repeat(np.arange(len(heldout)), [len(d) for d in heldout])
    total = np.zeros(len(heldout))
    np.add.at(total, document, -np.log2(probability))
    return total


def _flatten(documents: Sequence[Sequence[int]], vocab_size: int) -> tuple[Ints, Ints]:
    """All tokens in one array, and the place of each in its document; both of shape (tokens,)."""
    arrays = [np.asarray(document, np.int64) for document in documents]
    tokens = np.concatenate([np.empty(0, np.int64), *arrays])
    places = np.concatenate([np.empty(0, np.int64), *(np.arange(len(a)) for a in arrays)])
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        raise ValueError(f"token ids must lie in [0, {vocab_size}), found {tokens.min()} to {tokens.max()}")
    return tokens, places


def _before(ngram: Ints, places: Ints) -> Ints:
    """The n-gram that ends just before each token, -1 at a document's first token."""
    context = np.full(len(ngram), -1, np.int64)
    context[1:] = ngram[:-1]
    context[places == 0] = -1
    return context


def _levels(tokens: Ints, places: Ints, vocab_size: int, order: int) -> Iterator[_Level]:
    """The levels of orders 1, 2, ... `order`, shortest first; none for n-grams longer than every document."""
    contexts = 1
    keys, _, number = _ranked(tokens, np.zeros(len(tokens), np.int64), vocab_size)
    for n in range(1, order + 1):
        if not len(keys):
            return
        longer = _ranked(tokens, _before(number, places), vocab_size)
        if n == order:
            counted = number[number >= 0]
        else:  # how many different tokens, or a document's start, stand to the left
            counted = np.concatenate([number[longer[1]], np.unique(number[places == n - 1])])
        yield _level(keys, np.bincount(counted, minlength=len(keys)), vocab_size, contexts)
        contexts, (keys, _, number) = len(keys), longer


def _ranked(tokens: Ints, context: Ints, vocab_size: int) -> tuple[Ints, Ints, Ints]:
    """Distinct n-grams made of a context and the token after it.

    Returns their sorted keys and where each first ends, both of shape (ngrams,), and the number of the n-gram that ends
    at each token, or -1, of shape (tokens,).
    """
    at = np.flatnonzero(context >= 0)
    keys, first, inverse = np.unique(context[at] * vocab_size + tokens[at], return_index=True, return_inverse=True)
    number = np.full(len(tokens), -1, np.int64)
    number[at] = inverse
    return keys, at[first], number


def _level(keys: Ints, counts: Ints, vocab_size: int, contexts: int) -> _Level:
    context = keys // vocab_size
    discount = _discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context, weights=counts, minlength=contexts)
    left_over = np.bincount(context, weights=discount, minlength=contexts)
    backoff = np.divide(left_over, total, out=np.ones(contexts), where=total > 0)
    return _Level(keys, (counts - discount) / total[context], backoff)


def _discounts(counts: Ints) -> Floats:
    """[0, D1, D2, D3+] of equation 26; 0.5, 1, 1.5 where the counts of counts are too few to estimate them."""
    n = [int((counts == c).sum()) for c in range(5)]
    if all(n[1:]):
        y = n[1] / (n[1] + 2 * n[2])
        found = np.array([0.0, *(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))])
        if (found[1:] > 0).all():
            return found
    return np.array([0.0, 0.5, 1.0, 1.5])
