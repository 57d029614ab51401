from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.errors import SourceError
from flywheel.recipe import Split
from flywheel.record import Record
from flywheel.split import sides, sketch_units


def split(rows: list[Record], config: Split, seed: int, shards: int = 3) -> tuple[list[Record], list[Record]]:
    """Training and held-out rows, decided over the sketches of some shards."""
    parts = [[rows[i] for i in part] for part in np.array_split(np.arange(len(rows)), shards)]
    with TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(shards)]
        for path, part in zip(paths, parts, strict=True):
            table = sketch_units(part)
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        found = sides(paths, config, seed)
    assert [len(side) for side in found] == [len(part) for part in parts]
    side = np.concatenate(found).tolist()
    return [r for r, s in zip(rows, side, strict=True) if s == 0], [
        r for r, s in zip(rows, side, strict=True) if s == 1
    ]


def rows(groups: list[tuple[str, int]]) -> list[Record]:
    return [Record(id=str(n), text="x" * size, origin={"group": group}) for n, (group, size) in enumerate(groups)]


groups = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 500)), min_size=2).filter(
    lambda found: len({group for group, _ in found}) > 1
)


@given(groups, st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_no_group_stands_on_both_sides_and_no_row_is_lost(
    found: list[tuple[str, int]], heldout: float, seed: int
) -> None:
    given_rows = rows(found)
    train, held = split(given_rows, Split(heldout=heldout), seed)
    assert train
    assert held
    assert not {r.origin["group"] for r in train} & {r.origin["group"] for r in held}
    assert sorted(train + held, key=lambda r: int(r.id)) == given_rows
    assert (train, held) == split(given_rows, Split(heldout=heldout), seed, shards=1)


def test_the_share_is_one_of_bytes_and_the_seed_chooses() -> None:
    given_rows = rows([(f"g{n}", 50 + 7 * (n % 30)) for n in range(300)])
    chosen = set()
    for seed in range(5):
        train, held = split(given_rows, Split(heldout=0.1), seed)
        bytes_train, bytes_held = (sum(len(r.text or "") for r in side) for side in (train, held))
        assert bytes_held / (bytes_train + bytes_held) == pytest.approx(0.1, abs=0.005)
        chosen.add(frozenset(r.id for r in held))
    assert len(chosen) == 5


def test_a_new_row_hardly_moves_the_others() -> None:
    given_rows = rows([(f"g{n}", 100) for n in range(200)])
    before = {r.id for r in split(given_rows[:-1], Split(heldout=0.1), 0)[1]}
    after = {r.id for r in split(given_rows, Split(heldout=0.1), 0)[1]}
    assert len(before ^ after) <= 2


def test_labels_are_held_out_in_equal_shares() -> None:
    given_rows = [Record(id=str(n), image=bytes([n % 256]), label=str(n % 3)) for n in range(300)]
    train, held = split(given_rows, Split(heldout=0.2, by="label"), 1)
    assert Counter(r.label for r in held) == {"0": 20, "1": 20, "2": 20}
    assert len(train) == 240


def test_one_group_cannot_be_split_but_its_rows_can() -> None:
    given_rows = rows([("only", 10)] * 20)
    with pytest.raises(SourceError, match=r"(?s)1 group.*data.split.by: id"):
        split(given_rows, Split(), 0)
    assert len(split(given_rows, Split(by="id"), 0)[1]) == 2


def test_a_split_is_the_same_for_good() -> None:
    given_rows = [Record(id=f"row{n}", text="x" * (n % 7), label=str(n % 2)) for n in range(20)]
    held = {by: [r.id for r in split(given_rows, Split(heldout=0.2, by=by), 42)[1]] for by in ("id", "label")}
    assert held == {"id": ["row1", "row9", "row12", "row18"], "label": ["row1", "row11", "row12", "row18"]}
