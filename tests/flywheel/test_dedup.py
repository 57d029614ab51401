import random

import numpy as np
import pytest

from flywheel.dedup import Index, apart, exact, jaccard, near, shingles
from flywheel.record import Dropped, Record

WORDS = [f"word{n}" for n in range(2_000)]


def row(number: int, text: str) -> Record:
    return Record(id=str(number), text=text)


def dropped(rows: list[Record | Dropped]) -> dict[str, str]:
    return {r.id: r.reason for r in rows if isinstance(r, Dropped)}


def test_exact_duplicates_keep_the_first_whatever_the_label() -> None:
    rows = [
        Record(id="a", text="same"),
        Record(id="b", text="same"),
        Record(id="c", image=b"png", label="1"),
        Record(id="d", image=b"png", label="2"),
        Record(id="e", prompt="sa", completion="me"),
    ]
    assert dropped(list(exact(rows))) == {"b": "exact_duplicate", "d": "exact_duplicate"}


def planted(changes: int, seed: int) -> tuple[list[Record], set[str]]:
    """60 texts of 300 words, and after them a copy of each with some words replaced; the ids of the copies."""
    rng = random.Random(seed)
    originals = [rng.choices(WORDS, k=300) for _ in range(60)]
    copies = []
    for words in originals:
        copy = list(words)
        for place in rng.sample(range(300), changes):
            copy[place] = "changed"
        copies.append(copy)
    rows = [row(n, " ".join(words)) for n, words in enumerate(originals + copies)]
    return rows, {r.id for r in rows[60:]}


@pytest.mark.parametrize("seed", range(3))
def test_planted_near_duplicates_are_all_found_and_nothing_else(seed: int) -> None:
    rows, copies = planted(changes=5, seed=seed)
    assert dropped(list(near(rows, 0.8))) == dict.fromkeys(copies, "near_duplicate")


def test_what_is_less_similar_than_the_threshold_stays() -> None:
    rows, copies = planted(changes=20, seed=0)
    assert dropped(list(near(rows, 0.8))) == {}
    assert set(dropped(list(near(rows, 0.4)))) == copies


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_the_index_finds_what_comparing_all_pairs_finds(threshold: float) -> None:
    rng = random.Random(1)
    texts = []
    for _ in range(40):
        words = rng.choices(WORDS, k=80)
        for _ in range(4):
            words = [word if rng.random() > 0.02 else rng.choice(WORDS) for word in words]
            texts.append(" ".join(words))
    index, kept = Index(threshold), []
    for number, text in enumerate(texts):
        found = shingles(row(number, text))
        assert index.holds_similar(found) == any(jaccard(found, other) >= threshold for other in kept)
        if not index.holds_similar(found):
            index.add(found)
            kept.append(found)


def test_jaccard_of_shingles() -> None:
    a, b = shingles(row(0, "a b c d e f")), shingles(row(1, "a b, c (d) e g"))
    assert len(a) == len(b) == 2
    assert jaccard(a, b) == 1 / 3
    assert jaccard(a, a) == 1
    assert jaccard(np.array([], dtype=np.uint64), np.array([], dtype=np.uint64)) == 0


def test_short_texts_and_texts_without_words() -> None:
    rows = [
        row(0, "hello"),
        row(1, "hello!"),
        row(2, "?!"),
        row(3, "?!"),
        row(4, "東京都に住む"),
        row(5, "大阪市で働く"),
    ]
    assert dropped(list(near(rows, 0.8))) == {"1": "near_duplicate"}
    assert dropped(list(near([Record(id="i", image=b"png")] * 2, 0.8))) == {}


def test_training_rows_that_are_nearly_held_out_are_dropped() -> None:
    rows, _ = planted(changes=5, seed=0)
    picture = Record(id="p", image=b"png")
    result = list(apart([*rows[:60], picture], [*rows[60:90], picture]))
    assert dropped(result) == {**{str(n): "near_heldout" for n in range(30)}, "p": "near_heldout"}
