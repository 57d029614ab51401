from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.errors import RecipeError
from flywheel.metrics.answers import (
    answer_length,
    distinct,
    distinct_ngrams,
    exact_match,
    readability,
    reading_level,
    repeated_share,
    repetition,
    squad_f1,
    squad_form,
    syllables,
    token_f1,
)
from flywheel.record import Record
from tests.flywheel.metrics.scripted import Scripted, exam, exam_of

PAIRS = [
    ("1976", "1976"),
    ("Hello", "World"),
    ("The Cat.", "a cat"),
    ("the big black cat", "the black cat sat"),
    ("", "something"),
    ("", ""),
    ("the", "a"),
    ("cat cat cat", "cat"),
    ("Größe, 我们!", "größe 我们"),
    ("twenty-one", "twenty one"),
]


def test_answers_are_compared_as_squad_compares_them() -> None:
    # tests/unittests/text/_inputs.py of torchmetrics 1.9: SAMPLE_1 and SAMPLE_2, and BATCH for both
    assert [squad_f1(*pair) for pair in PAIRS[:2]] == [1.0, 0.0]
    assert squad_form("  The  Cat's (a) hat, an -- apple! ") == "cats hat apple"
    assert squad_f1("the big black cat", "the black cat sat") == pytest.approx(2 / 3)
    assert squad_f1("cat cat cat", "cat") == pytest.approx(2 * (1 / 3) / (1 / 3 + 1))


def test_squad_scores_are_those_of_torchmetrics() -> None:
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    asked = exam_of([a for a, _ in PAIRS], [r for _, r in PAIRS])
    theirs = squad(
        [{"prediction_text": a, "id": str(i)} for i, (a, _) in enumerate(PAIRS)],
        [{"answers": {"answer_start": [0], "text": [r]}, "id": str(i)} for i, (_, r) in enumerate(PAIRS)],
    )
    assert 100 * exact_match(asked)[0].value == pytest.approx(float(theirs["exact_match"]), abs=1e-5)
    assert 100 * token_f1(asked)[0].value == pytest.approx(float(theirs["f1"]), abs=1e-5)


def test_exact_match_to_the_letter() -> None:
    asked = exam_of(["The cat.", "a dog"], ["the cat", "a dog"])
    assert exact_match(asked)[0].value == 1
    (metric,) = exact_match(asked, normalize=False)
    assert (metric.value, metric.detail["normalize"]) == (0.5, False)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_a_symmetric_share(one: str, other: str) -> None:
    assert 0 <= squad_f1(one, other) <= 1
    assert squad_f1(one, other) == pytest.approx(squad_f1(other, one))
    assert squad_f1(one, one) == 1


def test_distinct_is_counted_over_all_answers() -> None:
    # "I don't know" twice: 3 words of 6, 2 pairs of 4 (Li et al. 2016: distinct n-grams / n-grams)
    assert distinct_ngrams(["I don't know", "I don't know"], 1).value == 0.5
    assert distinct_ngrams(["I don't know", "I don't know"], 2).value == 0.5
    assert distinct_ngrams(["a b c", "d e f"], 1).value == 1
    assert distinct_ngrams(["", "a"], 2).value == 0
    assert distinct_ngrams(["我们 去"], 1).detail["ngrams"] == 3


def test_the_interval_of_distinct_is_the_jackknifes() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklmnopqrst"), 6)) for _ in range(30)]

    def share(some: list[str]) -> float:
        counted = Counter(word for text in some for word in text.split())
        return len(counted) / counted.total()

    without = np.array([share(texts[:i] + texts[i + 1 :]) for i in range(30)])
    error = np.sqrt(29 / 30 * ((without - without.mean()) ** 2).sum())
    metric = distinct_ngrams(texts, 1)
    assert metric.value == pytest.approx(share(texts))
    assert metric.high - metric.value == pytest.approx(1.96 * error)


def test_repetition_is_the_share_of_ngrams_that_were_there_before() -> None:
    assert repeated_share("a b c d e", 4) == 0
    assert repeated_share("a b c d a b c d a b c d", 4) == pytest.approx(1 - 4 / 9)
    assert repeated_share("too short", 4) == 0
    (metric,) = repetition(exam_of(["a " * 13, "a b c d e"], ["x", "y"]))
    assert (metric.name, metric.better) == ("repetition_4", "lower")
    assert metric.value == pytest.approx(0.9 / 2)


def test_lengths_only_describe() -> None:
    words, characters, ratio = answer_length(exam_of(["one two", "three"], ["one", "two three four"]))
    assert (words.value, characters.value, ratio.value) == (1.5, 6, 0.75)
    assert {m.better for m in (words, characters, ratio)} == {"neither"}
    assert len(answer_length(exam_of(["one"], [""]))) == 2


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cat", 1), ("the", 1), ("sentence", 2), ("table", 2), ("taken", 2), ("reading", 2), ("passage", 2),
        ("being", 2), ("used", 1), ("platypus", 3), ("mammal", 2), ("creature", 2), ("yellow", 2), ("rhythm", 1),
        ("seemingly", 3), ("123456", 1), ("tsktsk", 1),
    ],
)  # fmt: skip
def test_syllables_are_counted_by_rule(word: str, expected: int) -> None:
    assert syllables(word) == expected


def test_reading_levels_of_known_sentences() -> None:
    # Flesch 1948 as worked out in "Flesch-Kincaid readability tests": 69 for the first, 37.5 for the second
    first = "This sentence, taken as a reading passage unto itself, is being used to prove a point."
    second = "The Australian platypus is seemingly a hybrid of a mammal and reptilian creature."
    for text, words, counted, ease in ((first, 16, 23, 69.0), (second, 13, 24, 37.5)):
        level = reading_level(text)
        assert level is not None
        assert level[0] == pytest.approx(ease, abs=0.1)
        assert level[1] == pytest.approx(0.39 * words + 11.8 * counted / words - 15.59)
    assert reading_level("One. Two! Three?") == reading_level("One.")
    assert reading_level("...") is None


def test_readability_of_answers_that_have_words() -> None:
    ease, grade = readability(exam_of(["The cat sat.", "", "---"], ["x", "y", "z"]))
    assert (ease.value, grade.value) == reading_level("The cat sat.")
    assert ease.detail["examples"] == 1
    assert readability(exam_of(["", "!"], ["x", "y"])) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_answers_can_be_described(answers: list[str]) -> None:
    asked = exam_of(answers, ["a reference"] * len(answers))
    for measure in (exact_match, token_f1, distinct, repetition, answer_length, readability):
        for metric in measure(asked):
            assert np.isfinite([metric.value, metric.low, metric.high]).all()
            assert metric.low - 1e-9 <= metric.value <= metric.high + 1e-9


def test_rows_without_an_answer_are_not_asked() -> None:
    talk = [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four."}]
    rows = [Record("text", text="alone"), Record("talk", messages=talk), Record("open", messages=talk[:1])]
    rows += [Record("side", prompt="Red?", chosen="Yes.", rejected="No.")]
    speaker = Scripted({"talk": "four", "side": "no"})
    (metric,) = exact_match(exam(rows, speaker))
    assert [row.id for row in speaker.asked] == ["talk", "side"]
    assert metric.value == 0.5
    with pytest.raises(RecipeError, match="token_f1"):
        token_f1(exam(rows[:1], speaker))


def test_at_most_num_samples_rows_are_asked() -> None:
    rows = [Record(str(i), prompt="?", completion="x") for i in range(10)]
    speaker = Scripted({str(i): "x" for i in range(10)})
    exact_match(exam(rows, speaker, num_samples=3))
    assert [row.id for row in speaker.asked] == ["0", "3", "6"]
