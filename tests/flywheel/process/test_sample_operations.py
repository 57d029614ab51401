from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.errors import RecipeError
from flywheel.process.sampling import balance, sample
from flywheel.process.table import Corpus
from flywheel.record import Record

ROWS = [
    Record(f"{n:016x}", text=str(n), label="ab"[n % 10 == 0], origin={"source": f"s{n % 3}", "group": f"g{n // 100}"})
    for n in range(1_000)
]


def kept(corpus: Corpus, directory: Path, shards: Sequence[Sequence[Record]], seed: int = 7) -> list[Record]:
    paths = []
    for number, rows in enumerate(shards):
        paths.append(directory / f"{number}.arrow")
        table = corpus.sketch(iter(rows))
        with pa.OSFile(str(paths[-1]), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    codes = corpus.decide(paths, seed)
    assert [len(c) for c in codes] == [len(rows) for rows in shards]
    assert all(c.dtype == np.uint8 and set(c.tolist()) <= {0, 1} for c in codes)
    return [row for rows, c in zip(shards, codes, strict=True) for row, code in zip(rows, c, strict=True) if code == 0]


def test_a_share_is_kept_whatever_the_shards_and_more_rows_change_nothing(tmp_path: Path) -> None:
    chosen = kept(sample(share=0.3), tmp_path, [ROWS])
    assert 240 < len(chosen) < 360
    assert kept(sample(share=0.3), tmp_path, [ROWS[:1], [], ROWS[1:400], ROWS[400:]]) == chosen
    assert kept(sample(share=0.3), tmp_path, [ROWS[:500]]) == [row for row in chosen if row in ROWS[:500]]
    assert kept(sample(share=0.3), tmp_path, [ROWS], seed=8) != chosen
    assert kept(sample(share=1.0), tmp_path, [ROWS]) == ROWS


def test_a_number_of_rows_is_kept_exactly_whatever_their_order(tmp_path: Path) -> None:
    chosen = kept(sample(count=100), tmp_path, [ROWS[:300], ROWS[300:]])
    assert len(chosen) == 100
    backwards = kept(sample(count=100), tmp_path, [ROWS[::-1]])
    assert sorted(row.id for row in backwards) == sorted(row.id for row in chosen)
    assert kept(sample(count=5_000), tmp_path, [ROWS]) == ROWS
    assert kept(sample(count=5), tmp_path, []) == []


@pytest.mark.parametrize("arguments", [{}, {"share": 0.5, "count": 3}])
def test_a_sample_is_a_share_or_a_count(arguments: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=r"share and count|neither"):
        sample(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ratio", "sizes"), [(1.0, {"a": 100, "b": 100}), (2.5, {"a": 250, "b": 100})])
def test_labels_are_balanced(ratio: float, sizes: dict[str, int], tmp_path: Path) -> None:
    chosen = kept(balance(max_ratio=ratio), tmp_path, [ROWS[:250], ROWS[250:]])
    assert Counter(row.label for row in chosen) == sizes


def test_sources_and_groups_are_balanced_and_rows_without_stay(tmp_path: Path) -> None:
    few = [*ROWS[:15], Record("none", text="x")]
    assert Counter(row.origin.get("source") for row in kept(balance("source"), tmp_path, [few])) == {
        "s0": 5, "s1": 5, "s2": 5, None: 1,
    }  # fmt: skip
    uneven = [*ROWS[:150], Record("none", text="x")]
    chosen = kept(balance("group", 1.5), tmp_path, [uneven])
    assert Counter(row.origin.get("group") for row in chosen) == {"g0": 75, "g1": 50, None: 1}
    unlabelled = [Record(str(n), text="x") for n in range(9)]
    assert kept(balance(), tmp_path, [unlabelled, []]) == unlabelled


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=40), ratio=st.floats(1, 5))
def test_no_class_is_larger_than_asked_nor_smaller_than_it_must(
    labels: list[str | None], ratio: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [Record(str(n), text="x", label=label) for n, label in enumerate(labels)]
    before = Counter(label for label in labels if label)
    after = Counter(
        row.label for row in kept(balance("label", ratio), tmp_path_factory.mktemp("b"), [rows]) if row.label
    )
    least = min(before.values(), default=0)
    assert after == {label: min(size, int(ratio * least)) for label, size in before.items()}
