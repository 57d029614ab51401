"""Prepare: run a recipe's operations over shards, split, keep the two sides apart, and make the second stage's rows.

Rows are looked at shard by shard in worker processes. What has to see all of them (duplicates, the split) decides over
small sketches and hands each shard a code for every row. Each of these pieces of work is kept under a key of what it
depends on, so that new data costs its own shards and the decisions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from flywheel import arguments, shards, split
from flywheel.arguments import named
from flywheel.artifact import sha256
from flywheel.counts import Counts, most_common
from flywheel.errors import ArtifactError, SourceError
from flywheel.process import check, duplicates, mix, passes
from flywheel.process.passes import ELSEWHERE
from flywheel.process.table import OPERATIONS, Codes
from flywheel.recipe import Recipe
from flywheel.recipe_base import Operation
from flywheel.record import facts, parts
from flywheel.sources.base import named_sources
from flywheel.workers import Mapper, Request

TRAIN, HELDOUT = 0, 1
"""The sides of a split."""
DECISION = "codes.json"


@dataclass(frozen=True)
class Piece:
    """One file of rows on its way, and what was decided about its rows since it was written."""

    file: Path
    key: str
    codes: Codes | None = None
    reasons: tuple[str, ...] = ()

    def live(self) -> int:
        """Number of rows that are still in."""
        return int(facts(self.file)["rows"]) if self.codes is None else int((self.codes == 0).sum())

    def marked(self, codes: Codes, reasons: Sequence[str]) -> Piece:
        """The piece after a decision about its live rows."""
        shifted = np.where((codes > 0) & (codes < ELSEWHERE), codes + len(self.reasons), codes).astype(np.uint8)
        if self.codes is None:
            return replace(self, codes=shifted, reasons=tuple(reasons))
        whole = self.codes.copy()
        whole[whole == 0] = shifted
        return replace(self, codes=whole, reasons=(*self.reasons, *reasons))


@dataclass
class Preparation:
    """The shards of one preparation, and what was left out so far."""

    cache: shards.Cache
    mapper: Mapper
    seed: int
    done: list[shards.Shard]
    """Every shard that was made or found, in order: they know what they left out."""
    operations: list[dict[str, Any]]

    def process(self, pieces: Sequence[Piece], operations: Sequence[Operation]) -> list[Piece]:
        """Run operations in their order."""
        current = list(pieces)
        for corpus, run in groupby(operations, lambda o: OPERATIONS[named(o)[0]].kind == "corpus"):
            if corpus:
                for operation in run:
                    current = self._decide(current, operation)
            else:
                current = self._run(current, list(run))
        return current

    def settled(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces with every decision carried out; files of which no row was dropped stay as they are."""
        touched = [p for p in pieces if p.codes is not None and p.codes.any()]
        made = iter(self._shards(touched, []))
        found: list[Piece] = []
        for piece in pieces:
            if piece.codes is not None and piece.codes.any():
                found += _pieces(next(made))
            else:
                found.append(replace(piece, codes=None, reasons=()))
        return found

    def sketches(self, pieces: Sequence[Piece], function: str) -> list[Path]:
        """A sketch for each piece, with one line for each live row."""
        wanted = [
            (
                shards.key("sketch", p.key, function, shards.code(function.partition(":")[0], passes.__name__)),
                Request(f"{passes.__name__}:sketch", {"file": str(p.file), "of": p.key, "sketch": function}),
            )
            for p in pieces
        ]
        made = self.cache.make(wanted, self.mapper, function)
        return [self._live(p, shard) for p, shard in zip(pieces, made, strict=True)]

    def decided(self, what: Sequence[Any], pieces: Sequence[Piece], decide: Callable[[], list[Codes]]) -> list[Codes]:
        """A decision about the live rows of some pieces: from the cache, where `what` and the rows were the same."""
        rows = [(p.key, None if p.codes is None else passes.packed(p.codes)) for p in pieces]
        key = shards.key("decide", what, self.seed, rows)
        if (found := self.cache.get(key)) is not None:
            return list(map(passes.unpacked, json.loads((found.path / DECISION).read_text())))
        codes = decide()
        with self.cache.staging(1) as (draft,):
            (draft / DECISION).write_text(json.dumps(list(map(passes.packed, codes))))
            self.cache.publish(key, draft, {"of": ""})
        return codes

    def augmented(self, pieces: Sequence[Piece], operations: Sequence[Operation]) -> list[shards.Shard]:
        """The rows that augmenting operations add to settled pieces."""
        if not operations:
            return []
        mark = shards.code(*check.modules(operations), passes.__name__)
        files = {str(p): sha256(p) for p in arguments.files(operations)}
        first = next((p for p in pieces if p.live()), None)
        wanted = []
        for p in pieces:
            asked = [o for o in operations if p is first or not OPERATIONS[named(o)[0]].once]
            if asked:
                argument = {"file": str(p.file), "of": p.key, "operations": asked}
                request = Request(f"{passes.__name__}:augment", argument)
                wanted.append((shards.key("augment", p.key, asked, files, mark), request))
        return self.cache.make(wanted, self.mapper, "data.augment")

    def _run(self, pieces: Sequence[Piece], operations: list[Operation]) -> list[Piece]:
        made = self._shards(pieces, operations)
        self._report(made, len(operations))
        return [piece for shard in made for piece in _pieces(shard)]

    def _decide(self, pieces: Sequence[Piece], operation: Operation) -> list[Piece]:
        name, arguments = named(operation)
        corpus = OPERATIONS[name].function(name)(**arguments)
        codes = self.decided(
            [operation, shards.code(OPERATIONS[name].module)],
            pieces,
            lambda: corpus.decide(
                self.sketches(pieces, f"{corpus.sketch.__module__}:{corpus.sketch.__name__}"), self.seed
            ),
        )
        read = sum(len(c) for c in codes)
        dropped = {reason: sum(int((c == n).sum()) for c in codes) for n, reason in enumerate(corpus.reasons, start=1)}
        lost = {reason: number for reason, number in dropped.items() if number}
        report = {
            "operation": name,
            "read": read,
            "made": read - sum(lost.values()),
            "dropped": lost,
            "quarantined": {},
        }
        self.operations.append(report)
        return [p.marked(c, corpus.reasons) for p, c in zip(pieces, codes, strict=True)]

    def _shards(self, pieces: Sequence[Piece], operations: list[Operation]) -> list[shards.Shard]:
        mark = shards.code(*check.modules(operations), passes.__name__)
        files = {str(p): sha256(p) for p in arguments.files(operations)}
        wanted = []
        for p in pieces:
            codes = None if p.codes is None or not p.codes.any() else passes.packed(p.codes)
            argument = {
                "file": str(p.file),
                "of": p.key,
                "codes": codes,
                "reasons": p.reasons,
                "operations": operations,
            }
            key = shards.key("run", p.key, codes, p.reasons, operations, files, mark)
            wanted.append((key, Request(f"{passes.__name__}:run", argument)))
        made = self.cache.make(wanted, self.mapper, "data.process")
        self.done += made
        return made

    def _report(self, made: Sequence[shards.Shard], number: int) -> None:
        """Add up what each operation did over all shards."""
        for position in range(number):
            total: dict[str, Any] = {}
            for shard in made:
                one = shard.facts["operations"][position]
                total = _added(total, one) if total else dict(one)
            if total:
                self.operations.append(total)

    def _live(self, piece: Piece, shard: shards.Shard) -> Path:
        """The sketch of a piece without the lines of rows that were dropped since it was written."""
        whole = shard.path / passes.SKETCH
        if piece.codes is None or not piece.codes.any():
            return whole
        import pyarrow as pa

        from flywheel.process.table import sketched

        key = shards.key("live", shard.key, passes.packed(piece.codes))
        if (found := self.cache.get(key)) is None:
            table = sketched(whole).filter(pa.array(piece.codes == 0))
            with self.cache.staging(1) as (draft,):
                with pa.OSFile(str(draft / passes.SKETCH), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                found = self.cache.publish(key, draft, {"rows": table.num_rows, "of": shard.key})
        return found.path / passes.SKETCH


def prepare(recipe: Recipe, rows: Path, out: Path, cache: shards.Cache, mapper: Mapper) -> dict[str, Any]:
    """Turn ingested rows (a file or a directory of Parquet files) into the rows that validation reads, all in `out`.

    `train/`, `heldout/` and `left.jsonl`; where the recipe has a second stage also `finetune_train/` and
    `finetune_heldout/`, made from the two sides one by one. Returns counts by source, where kept + dropped +
    quarantined = read and train + heldout = kept; copies that augment training rows are counted apart.
    Raises RecipeError for an operation that does not fit and SourceError where a side would be empty.
    """
    check.check_operations(recipe.data.process)
    check.check_operations(recipe.data.augment, "data.augment")
    work = Preparation(cache, mapper, recipe.seed, [], [])
    start = [Piece(file, sha256(file)) for file in parts(rows)]
    weights = {n.name: n.source.weight for n in named_sources(recipe.data.sources, {}) if n.source.weight != 1}
    pieces = work.process(start, [*mix.thinning(weights, recipe.seed), *recipe.data.process])
    train, heldout = _sides(work, pieces, recipe)
    summary = _counted(work, start, (*train, *heldout))
    more = work.augmented(train, [*mix.repeating(weights, recipe.seed), *recipe.data.augment])
    shards.link([p.file for p in train] + [f for s in more for f in s.rows], out / "train")
    shards.link([p.file for p in heldout], out / "heldout")
    shards.join_left(out / "left.jsonl", work.done)
    summary |= {
        "train": sum(p.live() for p in train),
        "heldout": sum(p.live() for p in heldout),
        "augmented": sum(facts(f)["rows"] for s in more for f in s.rows),
        "operations": work.operations,
    }
    if recipe.finetune is not None:
        summary |= _second_stage(recipe, work, train, heldout, out)
    return summary


def _sides(work: Preparation, pieces: Sequence[Piece], recipe: Recipe) -> tuple[list[Piece], list[Piece]]:
    """Training and held-out rows, none of which is in both, not even nearly."""
    _at_least_one(work, pieces, "prepared rows")
    how = ["split", recipe.data.split.model_dump(mode="json"), shards.code(split.__name__)]
    sides = work.decided(
        how,
        pieces,
        lambda: split.sides(work.sketches(pieces, f"{split.__name__}:sketch_units"), recipe.data.split, recipe.seed),
    )
    leaked = work.decided(
        ["apart", how, shards.code(duplicates.__name__)],
        pieces,
        lambda: duplicates.apart(work.sketches(pieces, f"{duplicates.__name__}:sketch"), sides),
    )
    train = [
        p.marked(np.where(side == HELDOUT, ELSEWHERE, codes).astype(np.uint8), ("near_heldout",))
        for p, side, codes in zip(pieces, sides, leaked, strict=True)
    ]
    heldout = [
        replace(p, codes=_others(p.codes)).marked(np.where(side == TRAIN, ELSEWHERE, 0).astype(np.uint8), ())
        for p, side in zip(pieces, sides, strict=True)
    ]
    _at_least_one(work, train, "training rows")
    return work.settled(train), work.settled(heldout)


def _others(codes: Codes | None) -> Codes | None:
    """Rows that were dropped before the split are counted once, with the training side."""
    return None if codes is None else np.where(codes == 0, 0, ELSEWHERE).astype(np.uint8)


def _second_stage(
    recipe: Recipe, first: Preparation, train: Sequence[Piece], heldout: Sequence[Piece], out: Path
) -> dict[str, Any]:
    """Rows of the second stage for each side; equal rows are kept once, and none stands (nearly) on both sides."""
    assert recipe.finetune is not None
    check.check_operations(recipe.finetune.process, "finetune.process")
    steps = [*recipe.finetune.process, "exact_dedup"]
    one = Preparation(first.cache, first.mapper, recipe.seed, [], [])
    two = Preparation(first.cache, first.mapper, recipe.seed, [], [])
    train_rows, heldout_rows = one.process(train, steps), two.settled(two.process(heldout, steps))
    both = [*one.sketches(train_rows, f"{duplicates.__name__}:sketch")]
    other = two.sketches(heldout_rows, f"{duplicates.__name__}:sketch")
    sides = [np.full(p.live(), TRAIN, np.uint8) for p in train_rows]
    sides += [np.full(p.live(), HELDOUT, np.uint8) for p in heldout_rows]
    leaked = duplicates.apart([*both, *other], sides)
    train_rows = [p.marked(c, ("near_heldout",)) for p, c in zip(train_rows, leaked, strict=False)]
    _at_least_one(one, train_rows, "rows to fine-tune on")
    _at_least_one(two, heldout_rows, "held-out rows for fine-tuning")
    train_rows = one.settled(train_rows)
    shards.link([p.file for p in train_rows], out / "finetune_train")
    shards.link([p.file for p in heldout_rows], out / "finetune_heldout")
    shards.join_left(out / "finetune_left.jsonl", (*one.done, *two.done))
    lost = Counts()
    _leave_out(lost, (*one.done, *two.done))
    return {
        "finetune_train": sum(p.live() for p in train_rows),
        "finetune_heldout": sum(p.live() for p in heldout_rows),
        "finetune_left": {"dropped": dict(lost.total().dropped), "quarantined": dict(lost.total().quarantined)},
        "finetune_operations": {"train": one.operations, "heldout": two.operations},
    }


def _counted(work: Preparation, start: Sequence[Piece], kept: Sequence[Piece]) -> dict[str, Any]:
    """Counts by source: read from the files at the start, kept from those at the end, left out from the lists of rows.

    Raises ArtifactError where rows were lost or doubled."""
    counts, size = Counts(), 0
    for piece in start:
        for name, number in facts(piece.file)["sources"].items():
            counts.sources[name].read += number
    for piece in kept:
        found = facts(piece.file)
        size += found["bytes"]
        for name, number in found["sources"].items():
            counts.sources[name].kept += number
    _leave_out(counts, work.done)
    if wrong := [name for name, count in counts.sources.items() if not count.add_up()]:
        count = counts.sources[wrong[0]]
        raise ArtifactError(
            f"rows of source {wrong[0]}",
            found=f"{count.read} read, {count.kept} kept, {count.dropped.total()} dropped, "
            f"{count.quarantined.total()} quarantined",
            expected="kept + dropped + quarantined = read",
            remedy="an operation yields more or fewer outcomes than rows: look at data.process",
        )
    return {**counts.as_json(), "bytes": size}


def _leave_out(counts: Counts, done: Iterable[shards.Shard]) -> None:
    """Count what some shards left out."""
    for shard in done:
        for name, count in shard.counts.sources.items():
            counts.sources[name].dropped += count.dropped
            counts.sources[name].quarantined += count.quarantined


def _pieces(shard: shards.Shard) -> list[Piece]:
    return [Piece(file, f"{shard.key}/{file.name}") for file in shard.rows]


def _added(total: dict[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("read", "made"):
        total[name] += one[name]
    for name in ("dropped", "quarantined"):
        total[name] = {r: total[name].get(r, 0) + one[name].get(r, 0) for r in sorted({*total[name], *one[name]})}
    return total


def _at_least_one(work: Preparation, pieces: Sequence[Piece], what: str) -> None:
    if any(piece.live() for piece in pieces):
        return
    reasons = [r for o in work.operations for r in (*o["dropped"].items(), *o["quarantined"].items())]
    raise SourceError(
        what,
        found=f"none; dropped: {most_common(reasons)}",
        expected="at least one",
        remedy="relax the operations that drop so much, or give more data",
    )
