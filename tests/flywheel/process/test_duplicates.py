import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.process.duplicates import apart, exact_dedup, near_dedup, sketch
from flywheel.process.shingles import PERMUTATIONS, WORDS, shingles, signatures, words
from flywheel.process.table import Corpus
from flywheel.record import Record

VOCABULARY = [f"word{n}" for n in range(2_000)]


def row(number: int, text: str) -> Record:
    return Record(id=str(number), text=text)


def sketches(folder: Path, shards: Sequence[Sequence[Record]]) -> list[Path]:
    paths = []
    for number, rows in enumerate(shards):
        table = sketch(rows)
        paths.append(folder / f"{number}.arrow")
        with pa.OSFile(str(paths[-1]), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, len(rows) // 2))
    return paths


def dropped(folder: Path, operation: Corpus, rows: Sequence[Record], shards: int = 3) -> set[str]:
    """Ids of the rows that an operation drops when they lie in some shards."""
    parts = [[rows[i] for i in part] for part in np.array_split(np.arange(len(rows)), shards)]
    codes = operation.decide(sketches(folder, parts), 0)
    assert [len(c) for c in codes] == [len(part) for part in parts]
    assert all(c.dtype == np.uint8 for c in codes)
    return {r.id for r, code in zip(rows, np.concatenate(codes), strict=True) if code}


def sets(text: str) -> set[tuple[str, ...]]:
    """The shingles of a text of ASCII, the slow and certain way."""
    found = re.findall(r"\w+", text.lower())
    return {tuple(found[i : i + WORDS]) for i in range(max(1, len(found) - WORDS + 1))} if found else set()


def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / max(1, len(a | b))


def clustered(texts: Sequence[str], threshold: float) -> set[str]:
    """What comparing all pairs drops: all but the first of each cluster of similar texts."""
    found, first = [sets(text) for text in texts], list(range(len(texts)))
    for b in range(len(texts)):
        for a in range(b):
            if jaccard(found[a], found[b]) >= threshold:
                low, high = sorted((first[a], first[b]))
                first = [low if f == high else f for f in first]
    return {str(n) for n, f in enumerate(first) if f != n}


def test_exact_duplicates_keep_the_first_whatever_the_label(tmp_path: Path) -> None:
    rows = [
        Record(id="a", text="same"),
        Record(id="b", text="same"),
        Record(id="c", image=b"png", label="1"),
        Record(id="d", image=b"png", label="2"),
        Record(id="e", prompt="sa", completion="me"),
        Record(id="f", messages=[{"role": "user", "content": "same"}]),
        Record(id="g", messages=[{"role": "user", "content": "same"}]),
    ]
    assert dropped(tmp_path, exact_dedup(), rows) == {"b", "d", "g"}
    assert exact_dedup().reasons == ("exact_duplicate",)


def planted(changes: int, seed: int) -> tuple[list[Record], set[str]]:
    """60 texts of 300 words, and after them a copy of each with some words replaced; the ids of the copies."""
    rng = random.Random(seed)
    originals = [rng.choices(VOCABULARY, k=300) for _ in range(60)]
    copies = []
    for chosen in originals:
        copy = list(chosen)
        for place in rng.sample(range(300), changes):
            copy[place] = "changed"
        copies.append(copy)
    rows = [row(n, " ".join(chosen)) for n, chosen in enumerate(originals + copies)]
    return rows, {r.id for r in rows[60:]}


@pytest.mark.parametrize("seed", range(3))
def test_planted_near_duplicates_are_all_found_and_nothing_else(tmp_path: Path, seed: int) -> None:
    rows, copies = planted(changes=5, seed=seed)
    assert dropped(tmp_path, near_dedup(), rows) == copies
    assert dropped(tmp_path, near_dedup(), rows, shards=1) == copies
    assert near_dedup().reasons == ("near_duplicate",)


def test_what_is_less_similar_than_the_threshold_stays(tmp_path: Path) -> None:
    rows, copies = planted(changes=20, seed=0)
    assert dropped(tmp_path, near_dedup(0.8), rows) == set()
    assert dropped(tmp_path, near_dedup(0.4), rows) == copies


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_nearly_all_is_found_that_comparing_all_pairs_finds_and_no_more(tmp_path: Path, threshold: float) -> None:
    rng, texts = random.Random(1), list[str]()
    for _ in range(50):
        base = rng.choices(VOCABULARY, k=rng.randint(5, 120))
        for _ in range(5):
            base = [word if rng.random() > 0.02 else rng.choice(VOCABULARY) for word in base]
            texts.append(" ".join(base))
    rng.shuffle(texts)
    expected = clustered(texts, threshold)
    found = dropped(tmp_path, near_dedup(threshold), [row(n, text) for n, text in enumerate(texts)])
    assert found <= expected
    assert len(found) >= 0.98 * len(expected)


def test_boilerplate_that_all_rows_share_hides_no_duplicates(tmp_path: Path) -> None:
    rng = random.Random(2)
    header = " ".join(rng.choices(VOCABULARY, k=60))
    bodies = [rng.choices(VOCABULARY, k=60) for _ in range(400)]
    texts = [f"{header} {' '.join(body)}" for body in bodies]
    texts += [f"{header} {' '.join(body[:-1])} last" for body in bodies[:100]]
    rows = [row(n, text) for n, text in enumerate(texts)]
    assert dropped(tmp_path, near_dedup(), rows) == {str(n) for n in range(400, 500)}


def test_many_copies_are_one_cluster(tmp_path: Path) -> None:
    texts = [" ".join(VOCABULARY[:50]), " ".join(VOCABULARY[:51]), " ".join(VOCABULARY[:50]).upper()] * 500
    found = dropped(tmp_path, near_dedup(), [row(n, text) for n, text in enumerate(texts)])
    assert found == {str(n) for n in range(1, 1_500)}


def test_short_texts_and_texts_without_words(tmp_path: Path) -> None:
    rows = [
        row(0, "hello"),
        row(1, "Hello!"),
        row(2, "?!"),
        row(3, "?!"),
        row(4, "東京都に住む"),
        row(5, "大阪市で働く"),
        row(6, "hello hello"),
    ]
    assert dropped(tmp_path, near_dedup(), rows) == {"1"}
    assert dropped(tmp_path, near_dedup(), [Record(id="i", image=b"png")] * 2) == set()
    assert dropped(tmp_path, near_dedup(), []) == set()


def test_training_rows_that_are_nearly_held_out_are_dropped(tmp_path: Path) -> None:
    rows, _ = planted(changes=5, seed=0)
    picture = Record(id="p", image=b"png")
    shards = [[*rows[:60], picture], [*rows[60:90], picture], [*rows[90:120], picture]]
    sides = [np.full(len(shard), side, np.uint8) for shard, side in zip(shards, (0, 1, 255), strict=True)]
    codes = apart(sketches(tmp_path, shards), sides)
    assert codes[0].tolist() == [1] * 30 + [0] * 30 + [1]
    assert not codes[1].any()
    assert not codes[2].any()


def test_rows_that_play_no_part_hide_no_leak(tmp_path: Path) -> None:
    shards = [[row(0, "same"), row(1, "same"), row(2, "same")], []]
    codes = apart(sketches(tmp_path, shards), [np.array([255, 0, 1], np.uint8), np.empty(0, np.uint8)])
    assert [c.tolist() for c in codes] == [[0, 1, 0], []]


def test_words_are_those_of_a_reader() -> None:
    hashes, counts = words(["Déjà-vu: naïve_1 “Don't”", "", "東京 ok", "दुनिया को", "ไทย", "x" * 600_000, "vu"])
    assert counts.tolist() == [5, 0, 3, 2, 3, 3, 1]
    assert hashes[1] == hashes[-1]
    assert words(["DÉJÀ"])[0] == words(["— déjà!"])[0]
    assert words(["\ud800"])[1].tolist() == [0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), max_size=8), st.lists(st.text(alphabet="ab cé東", max_size=40), max_size=8))
def test_a_text_has_the_same_shingles_in_any_company(some: list[str], others: list[str]) -> None:
    texts = [*some, *others]
    found, sizes = shingles(texts)
    parts = np.split(found, np.cumsum(sizes)[:-1]) if texts else []
    for text, part in zip(texts, parts, strict=True):
        alone = shingles([text])[0]
        assert (part == alone).all()
        assert (np.diff(part.astype(np.int64)) > 0).all()
    assert signatures(found, sizes).shape == (PERMUTATIONS, len(texts))


@given(st.lists(st.sampled_from(["a", "B", "c, d", "\n", "..", "e"]), max_size=30))
def test_a_shingle_is_a_run_of_five_words(parts: list[str]) -> None:
    assert len(shingles([" ".join(parts)])[0]) == len(sets(" ".join(parts)))


def test_signatures_agree_as_often_as_sets_are_similar() -> None:
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        agreed = []
        for _ in range(60):
            pool = rng.integers(0, 2**32, size=300, dtype=np.uint32)
            common = pool[: round(300 * share)]
            rest = np.array_split(pool[len(common) :], 2)
            pair = [np.unique(np.concatenate([common, part])) for part in rest]
            both = signatures(np.concatenate(pair), np.array([len(part) for part in pair]))
            agreed.append((both[:, 0] == both[:, 1]).mean())
        assert np.mean(agreed) == pytest.approx(share, abs=0.025)


def test_a_sketch_is_fixed_for_good() -> None:
    table = sketch([row(0, "The quick brown fox jumps over the lazy dog, naïvely.")])
    assert table["shingles"].to_pylist()[0][:2] == [1277115631, 1278246503]
    assert table["minimum_0"].to_pylist() == [740570195]
    assert table["high"].to_pylist() == [17956548247849151529]
