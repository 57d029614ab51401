"""Exact and near duplicates among millions of rows, within the rows and across the border of a split.

Near duplicates: MinHash with banded locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman & Ullman, Mining of
Massive Datasets, ch. 3). A pair is compared where it agrees in a band, and counts only if the exact Jaccard similarity
of its shingles is high enough. Some 100 bytes a row are held in memory; shingles are read to compare a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from flywheel.process.shingles import PERMUTATIONS, Counts, Hashes, Shingles, mixed, shingles, signatures
from flywheel.process.table import Codes, Corpus, sketched
from flywheel.record import Record, content, texts

if TYPE_CHECKING:
    import pyarrow as pa

THRESHOLD = 0.8
"""Jaccard similarity from which two texts count as near duplicates across the border of a split."""
MISSED = 0.005
"""Probability at most, over hash functions, that a pair exactly at the threshold is not compared."""
ROUNDS = 16
"""Rows of a bucket, at most, that all its other rows are compared with: a bucket of boilerplate stays affordable."""
NEIGHBOURS = 4
"""Rows of a bucket that each one is compared with besides, so that small buckets are compared in full."""

_BATCH = 1 << 18
"""Characters that are sketched together."""
_COMPARED = 1 << 20
"""Shingles that are held while pairs are compared; more only for a single longer pair."""

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


def exact_dedup() -> Corpus:
    """Drop every row whose content (text or bytes, not its label) was there before: `exact_duplicate`."""
    return Corpus(("exact_duplicate",), sketch, lambda paths, seed: _exact(Sketches.read(paths)))


def near_dedup(threshold: Annotated[float, Field(gt=0, le=1)] = 0.8) -> Corpus:
    """Drop texts at least `threshold` similar (Jaccard over five-word shingles) to another: `near_duplicate`.

    Of each cluster of similar texts the first is kept. Rows without words, such as pictures, stay.
    """
    return Corpus(("near_duplicate",), sketch, lambda paths, seed: _near(Sketches.read(paths), threshold))


def apart(paths: Sequence[Path], sides: Sequence[Codes]) -> list[Codes]:
    """Code 1 for every training row that equals a held-out one or is at least THRESHOLD similar: `near_heldout`.

    `sides` says of each row of each sketch: 0 training, 1 held-out, 255 no part in it.
    A leak would flatter the evaluation, while a training row less costs next to nothing.
    """
    rows = Sketches.read(paths)
    side = np.concatenate([*sides, np.empty(0, np.uint8)])
    return rows.sharded(leaks(rows, side, THRESHOLD))


def sketch(rows: Iterable[Record]) -> pa.Table:
    """One line for each row: digest of its content, set of shingles, signature. About as large as the text."""
    import pyarrow as pa

    digests, found = bytearray(), list[tuple[Shingles, Counts, NDArray[np.uint32]]]()
    for batch in _batches(rows, digests):
        sets, sizes = shingles(batch)
        found.append((sets, sizes, signatures(sets, sizes)))
    sets = np.concatenate([*(part[0] for part in found), np.empty(0, np.uint32)])
    sizes = np.concatenate([*(part[1] for part in found), np.empty(0, np.int64)])
    lowest = np.concatenate([*(part[2] for part in found), np.empty((PERMUTATIONS, 0), np.uint32)], axis=1)
    halves = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)
    columns: dict[str, Any] = {
        "high": pa.array(halves[:, 0].copy()),
        "low": pa.array(halves[:, 1].copy()),
        "shingles": pa.ListArray.from_arrays(np.append(0, np.cumsum(sizes)).astype(np.int32), sets),
    }
    return pa.table(columns | {_minimum(place): pa.array(lowest[place]) for place in range(PERMUTATIONS)})


def _batches(rows: Iterable[Record], digests: bytearray) -> Iterator[list[str]]:
    """Texts of rows, some at a time; adds the digest of each row's content to `digests`."""
    waiting, held = list[str](), 0
    for row in rows:
        digests += xxhash.xxh3_128_digest(content(row))
        waiting.append("\n".join(texts(row)))
        held += len(waiting[-1])
        if held >= _BATCH:
            yield waiting
            waiting, held = [], 0
    if waiting:
        yield waiting


def _minimum(place: int) -> str:
    return f"minimum_{place}"


class Sketches:
    """The sketches of all shards, as one numbered list of rows in corpus order.

    A table is asked for when it is looked at and let go of afterwards, so that one at a time is mapped into memory.
    """

    def __init__(self, tables: Sequence[Callable[[], pa.Table]]) -> None:
        self._tables = tables
        starts, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        for table in tables:
            offsets = _sets(table()).offsets.to_numpy()
            starts.append(offsets[:-1].copy())
            lengths.append(np.diff(offsets))
        self._starts, self.lengths = np.concatenate(starts), np.concatenate(lengths)
        self._borders = np.cumsum(list(map(len, lengths)))

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Sketches:
        return cls([partial(sketched, path) for path in paths])

    def __len__(self) -> int:
        return len(self.lengths)

    def sharded(self, dropped: Mask) -> list[Codes]:
        """What was decided about all rows, as codes for each shard."""
        return np.split(dropped.astype(np.uint8), self._borders[1:])[: len(self._tables)]

    def first_copies(self) -> Rows:
        """For each row the first one of the same content, which may be itself."""
        low, high = self._column("low"), self._column("high")
        order = np.argsort(low, kind="stable")
        low, high = low[order], high[order]
        new = np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]))[: len(order)]
        first = np.empty(len(order), np.int64)
        first[order] = order[new][np.cumsum(new) - 1]
        return first

    def bands(self, threshold: float) -> Iterator[Hashes]:
        """One key for each row, band after band: what is similar enough has the same key in one of them."""
        size = _rows_per_band(threshold)
        for start in range(0, PERMUTATIONS - size + 1, size):
            keys = np.zeros(len(self), np.uint64)
            for rows, table in self._each():
                for place in range(start, start + size):
                    keys[rows] = mixed(keys[rows] ^ _numbers(table, _minimum(place)))
            yield keys

    def similar(self, left: Rows, right: Rows, threshold: float) -> Mask:
        """Whether the exact Jaccard similarity of each pair reaches the threshold; without words it is 0."""
        a, b = self.lengths[left].astype(np.int64), self.lengths[right].astype(np.int64)
        result = np.minimum(a, b) / np.maximum(np.maximum(a, b), 1) >= threshold
        pairs = np.flatnonzero(result)
        parts = np.cumsum(a[pairs] + b[pairs]) // _COMPARED
        for part in np.split(pairs, np.flatnonzero(np.diff(parts)) + 1):
            common = self._common(left[part], right[part])
            result[part] = common / np.maximum(a[part] + b[part] - common, 1) >= threshold
        return result

    def _common(self, left: Rows, right: Rows) -> Counts:
        """Size of the intersection of each pair of sets: what is there twice once both are sorted into one list."""
        rows = np.stack([left, right], axis=1).ravel()
        shards = np.searchsorted(self._borders, rows, side="right") - 1
        order = np.argsort(shards, kind="stable")
        rows, parts = rows[order], [np.empty(0, np.uint32)]
        starts, lengths = self._starts[rows].astype(np.int64), self.lengths[rows].astype(np.int64)
        borders = np.flatnonzero(np.diff(shards[order], prepend=-1))
        for places in np.split(np.arange(len(rows)), borders[1:]) if len(rows) else ():
            values = _sets(self._tables[shards[order[places[0]]]]()).values.to_numpy()
            ends = starts[places] + lengths[places]
            parts.append(np.concatenate([values[s:e] for s, e in zip(starts[places], ends, strict=True)]))
        keys = np.concatenate(parts).astype(np.uint64)
        keys |= np.repeat(order.astype(np.uint64) >> np.uint64(1), lengths) << np.uint64(32)
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
        return np.bincount(twice.astype(np.int64), minlength=len(left))

    def _column(self, name: str) -> NDArray[Any]:
        found = np.empty(len(self), np.uint64)
        for rows, table in self._each():
            found[rows] = _numbers(table, name)
        return found

    def _each(self) -> Iterator[tuple[slice, pa.Table]]:
        """The places of the rows of each table, and the table."""
        for table, (start, end) in zip(self._tables, pairwise(self._borders.tolist()), strict=True):
            yield slice(start, end), table()


def _sets(table: pa.Table) -> pa.ListArray:
    return table["shingles"].combine_chunks()


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    found: NDArray[Any] = table[name].to_numpy()
    return found


def leaks(rows: Sketches, side: Codes, threshold: float) -> Mask:
    """Which rows of side 0 equal a row of side 1 or are at least `threshold` similar to one, shape (rows,)."""
    heldout, first = side == 1, rows.first_copies()
    content_heldout = np.zeros(len(rows), np.bool_)
    content_heldout[first[heldout]] = True
    leaked: Mask = (side == 0) & content_heldout[first]
    taking_part = np.flatnonzero((heldout | (side == 0)) & ~leaked & (rows.lengths > 0))
    for keys in rows.bands(threshold):
        taking_part = taking_part[~leaked[taking_part]]
        # Held-out rows come first in their bucket; each of the first ROUNDS is compared with all training rows.
        order = np.concatenate([taking_part[heldout[taking_part]], taking_part[~heldout[taking_part]]])
        members, new = _buckets(keys[order], order)
        bucket = np.cumsum(new) - 1
        firsts = np.flatnonzero(new)
        training = np.flatnonzero(~heldout[members])
        for offset in range(ROUNDS):
            compared = np.minimum(firsts[bucket[training]] + offset, len(members) - 1)
            open_pairs = heldout[members[compared]] & (bucket[compared] == bucket[training])
            training, compared = training[open_pairs], compared[open_pairs]
            if not len(training):
                break
            found = rows.similar(members[compared], members[training], threshold)
            leaked[members[training[found]]] = True
            training = training[~leaked[members[training]]]
    return leaked


def _exact(rows: Sketches) -> list[Codes]:
    return rows.sharded(rows.first_copies() != np.arange(len(rows)))


def _near(rows: Sketches, threshold: float) -> list[Codes]:
    """Clusters of verified pairs; exact copies are in one from the start, so that only one of them is compared."""
    parents = np.where(rows.lengths > 0, rows.first_copies(), np.arange(len(rows)))
    distinct = np.flatnonzero((rows.lengths > 0) & (parents == np.arange(len(rows))))
    for keys in rows.bands(threshold):
        members, new = _buckets(keys[distinct], distinct)
        bucket = np.cumsum(new) - 1
        for offset in range(1, NEIGHBOURS + 1):
            near = np.flatnonzero(bucket[offset:] == bucket[:-offset])
            _compare(rows, parents, members[near], members[near + offset], threshold)
        for _ in range(ROUNDS):
            if not len(members):
                break
            bucket = np.cumsum(new) - 1
            others, bucket = members[~new], bucket[~new]
            unlike = ~_compare(rows, parents, members[new][bucket], others, threshold)
            # Those unlike the first one are compared among themselves in the next round.
            members, bucket = others[unlike], bucket[unlike]
            new = np.append(True, bucket[1:] != bucket[:-1])[: len(bucket)]
    return rows.sharded(_roots(parents, np.arange(len(rows))) != np.arange(len(rows)))


def _compare(rows: Sketches, parents: Rows, left: Rows, right: Rows, threshold: float) -> Mask:
    """Join the clusters of similar pairs; whether each pair is in one cluster now. Those that were cost nothing."""
    joined: Mask = _roots(parents, left) == _roots(parents, right)
    pairs = np.flatnonzero(~joined)
    found = pairs[rows.similar(left[pairs], right[pairs], threshold)]
    _join(parents, left[found], right[found])
    joined[found] = True
    return joined


def _buckets(keys: Hashes, rows: Rows) -> tuple[Rows, Mask]:
    """The rows that share their key with another, bucket after bucket, in the given order within each; and where a
    bucket starts.

    The key gives some of its bits to the place in the list, so that one sort of integers does it all; where different
    keys fall together, comparing the pairs tells them apart.
    """
    bits = np.uint64(max(1, len(rows).bit_length()))
    packed = (keys >> bits << bits) | np.arange(len(rows), dtype=np.uint64)
    packed.sort()
    same = (packed[1:] ^ packed[:-1]) >> bits == 0
    shared = np.append(False, same)[: len(packed)] | np.append(same, False)[: len(packed)]
    new = ~np.append(False, same)[: len(packed)][shared]
    return rows[(packed[shared] & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)], new


def _roots(parents: Rows, rows: Rows) -> Rows:
    """The first row of each row's cluster; paths are shortened on the way."""
    found = parents[rows]
    while True:
        above = parents[found]
        if (above == found).all():
            break
        found = above
    parents[rows] = found
    return found


def _join(parents: Rows, left: Rows, right: Rows) -> None:
    """Make one cluster of the clusters of each pair (union-find, for many pairs at once)."""
    while True:
        a, b = _roots(parents, left), _roots(parents, right)
        differ = a != b
        if not differ.any():
            return
        np.minimum.at(parents, np.maximum(a, b)[differ], np.minimum(a, b)[differ])


def _rows_per_band(threshold: float) -> int:
    """The largest band that misses a pair at the threshold with probability MISSED at most."""
    fits = (r for r in range(16, 1, -1) if (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED)
    return next(fits, 1)
