"""Sampling and balance: which rows stay is decided by hashes of their ids and the seed, never by their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import xxhash
from pydantic import Field

from flywheel.errors import RecipeError
from flywheel.process.shingles import Hashes, mixed
from flywheel.process.table import Codes, Corpus, sketched
from flywheel.record import Record

if TYPE_CHECKING:
    import pyarrow as pa

By = Literal["label", "source", "group"]


def sample(
    share: Annotated[float | None, Field(gt=0, le=1)] = None, count: Annotated[int | None, Field(ge=1)] = None
) -> Corpus:
    """Keep about a `share` of the rows, or exactly `count` of them; the others are dropped as `not_sampled`.

    With `share`, added rows change nothing for those that were there. Raises RecipeError unless one of them is given.
    """
    if (share is None) == (count is None):
        raise RecipeError(
            "operation `sample`",
            found="neither share nor count" if share is None else "share and count",
            expected="one of them",
            remedy="write `sample: {share: 0.1}` or `sample: {count: 10000}`",
        )
    return Corpus(("not_sampled",), sketch, partial(_sampled, share=share, count=count))


def balance(by: By = "label", max_ratio: Annotated[float, Field(ge=1)] = 1.0) -> Corpus:
    """Leave no class more than `max_ratio` times as many rows as the smallest has; others drop as `unbalanced`.

    Classes are the labels, sources or groups of the rows. Rows without one stay and do not count.
    """
    return Corpus(("unbalanced",), sketch, partial(_balanced, by=by, max_ratio=max_ratio))


def sketch(rows: Iterable[Record]) -> pa.Table:
    """A hash of the id, and the classes, of each row."""
    import pyarrow as pa

    ids: list[int] = []
    classes: dict[str, list[str | None]] = {"label": [], "source": [], "group": []}
    for row in rows:
        ids.append(xxhash.xxh3_64_intdigest(row.id.encode()))
        classes["label"].append(row.label)
        for name in ("source", "group"):
            value = row.origin.get(name)
            classes[name].append(None if value in (None, "") else str(value))
    columns = {name: pa.array(values, pa.string()) for name, values in classes.items()}
    return pa.table({"id": pa.array(ids, pa.uint64()), **columns})


def _sampled(paths: Sequence[Path], seed: int, share: float | None, count: int | None) -> list[Codes]:
    shards = [_draws(sketched(path), seed, "sample") for path in paths]
    if share is not None:
        limit = min(int(share * 2**64), 2**64 - 1)
        return [(draws > np.uint64(limit)).astype(np.uint8) for draws in shards]
    drawn = np.concatenate([*shards, np.empty(0, np.uint64)])
    codes = np.ones(len(drawn), np.uint8)
    codes[np.argsort(drawn, kind="stable")[:count]] = 0
    return _sharded(codes, [len(draws) for draws in shards])


def _balanced(paths: Sequence[Path], seed: int, by: By, max_ratio: float) -> list[Codes]:
    import pyarrow as pa

    shards = [sketched(path) for path in paths]
    drawn = np.concatenate([*(_draws(shard, seed, "balance") for shard in shards), np.empty(0, np.uint64)])
    values = pa.chunked_array([chunk for shard in shards for chunk in shard[by].chunks], pa.string())
    encoded = values.combine_chunks().dictionary_encode()
    classes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    codes = np.zeros(len(drawn), np.uint8)
    sizes = np.bincount(classes[classes >= 0])
    if len(sizes):
        order = np.lexsort((drawn, classes))
        order = order[classes[order] >= 0]
        starts = np.cumsum(sizes) - sizes
        ranks = np.arange(len(order)) - starts[classes[order]]
        codes[order[ranks >= int(max_ratio * sizes.min())]] = 1
    return _sharded(codes, [len(shard) for shard in shards])


def _draws(shard: pa.Table, seed: int, purpose: str) -> Hashes:
    """A number for each row, evenly spread over 64 bits."""
    salt = np.uint64(xxhash.xxh3_64_intdigest(f"{purpose}\0{seed}".encode()))
    return mixed(shard["id"].combine_chunks().to_numpy(zero_copy_only=False) ^ salt)


def _sharded(codes: Codes, lengths: Sequence[int]) -> list[Codes]:
    return np.split(codes, np.cumsum(lengths)[:-1]) if lengths else []
