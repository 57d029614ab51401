import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.process.quality import (
    c4_filter,
    corrupt_filter,
    missing_filter,
    quality_filter,
    word_length_filter,
)
from flywheel.process.repetition import repeated_ngrams, repetition_filter
from flywheel.record import LeftOut, Outcomes, Record

PROSE = (
    "The river that runs through the valley was once the only road to the coast, and people who have lived here for a "
    "long time still speak of the boats with some affection. In spring the water rises to the doors of the old mill, "
    "which nobody has used since the fire. A few of the older houses were built of stone from the quarry above town."
)


def reasons(outcomes: Outcomes) -> list[str]:
    return [row.reason if isinstance(row, LeftOut) else "" for row in outcomes]


def rows(*texts: str) -> list[Record]:
    return [Record(str(n), text=text) for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        ("The cat and the dog.", "gopher_short_doc"),
        ("to be of it " * 20, "gopher_below_avg_threshold"),
        ("incomprehensibilities " * 60 + PROSE, "gopher_above_avg_threshold"),
        (PROSE + " #tag" * 10, "gopher_too_many_hashes"),
        (PROSE + " wait..." * 10, "gopher_too_many_ellipsis"),
        ("\n".join(f"- {part}" for part in PROSE.split(", ")), "gopher_too_many_bullets"),
        (PROSE + "\nRead more…\nRead on...", "gopher_too_many_end_ellipsis"),
        (PROSE + " 1234" * 40, "gopher_below_alpha_threshold"),
        (PROSE.replace("The", "Le").replace("the", "le").replace("and", "et").replace("to", "à").replace("of", "de")
         .replace("that", "qui").replace("have", "ont").replace("with", "avec"), "gopher_too_few_stop_words"),
    ],
)  # fmt: skip
def test_gophers_rules_have_each_their_reason(text: str, reason: str) -> None:
    assert reasons(quality_filter(rows(text))) == [reason]


def test_quality_in_other_languages_and_bounds() -> None:
    german = "Der Fluss, der durch das Tal fließt, war einst die einzige Straße zur Küste und ist es noch. " * 4
    assert reasons(quality_filter(rows(german))) == ["gopher_too_few_stop_words"]
    assert reasons(quality_filter(rows(german), language="de")) == [""]
    assert reasons(quality_filter(rows(PROSE), max_words=10, min_words=0)) == ["gopher_long_doc"]
    assert reasons(quality_filter(rows("The cat and the dog."), min_words=5)) == [""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        ("Yes.", ""),
        ("one two three", ""),
        ("\n\n".join(["same paragraph"] * 3 + [PROSE]), "dup_para_frac"),
        ("\n\n".join([PROSE, PROSE, *"abcdef"]), "dup_para_char_frac"),
        ("\n".join(["menu"] * 3 + [PROSE]), "dup_line_frac"),
        ("\n".join([PROSE, PROSE, *"abcdef"]), "dup_line_char_frac"),
        ("buy now " * 20 + PROSE, "top_2_gram"),
        (PROSE + " " + PROSE, "duplicated_5_n_grams"),
    ],
)
def test_repetition_has_each_its_reason(text: str, reason: str) -> None:
    assert reasons(repetition_filter(rows(text))) == [reason]


def test_bounds_of_repetition_are_arguments() -> None:
    text = "\n".join(["menu"] * 3 + [PROSE])
    assert reasons(repetition_filter(rows(text), lines=0.6)) == [""]


def plain_rules(words: list[str], length: int) -> str:
    """The rules as the paper states them, without the short cuts."""
    for n, share in ((2, 0.20), (3, 0.18), (4, 0.16)):
        counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        ngram, count = counts.most_common(1)[0] if counts else ((), 0)
        if count > 1 and count * len(" ".join(ngram)) > share * length:
            return f"top_{n}_gram"
    for n, share in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True):
        seen, i, repeated = set(), 0, 0
        while i <= len(words) - n:
            ngram = tuple(words[i : i + n])
            repeated += len("".join(ngram)) if ngram in seen else 0
            i += n if ngram in seen else 1
            seen.add(ngram)
        if repeated > share * length:
            return f"duplicated_{n}_n_grams"
    return ""


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 400), st.integers(0, 60), st.integers(0, 10**6))
def test_counting_by_bounds_decides_as_plain_counting_does(vocabulary: int, copied: int, seed: int) -> None:
    draw = random.Random(seed)
    words = [f"w{draw.randrange(vocabulary)}" for _ in range(draw.randrange(300))]
    place = draw.randrange(len(words) + 1)
    words += words[place : place + copied]
    length = len(" ".join(words))
    assert repeated_ngrams(words, length) == plain_rules(words, length)


def test_lines_that_are_no_sentences_go_by_c4s_rules() -> None:
    sentences = [f"This is the sentence number {n}." for n in range(5)]
    page = ["Home | About", *sentences, "Read more...", "Please enable Javascript in your browser.", "So it is.", "No."]
    (row,) = c4_filter(rows("\n".join(page)))
    assert isinstance(row, Record)
    assert row.text == "\n".join([*sentences, "So it is."])
    bad = rows(
        "Lorem ipsum dolor.", "if (x) { y. }", "One sentence only.", "x" * 1_001 + " a b c.\n" + "Two of them. " * 5
    )
    assert reasons(c4_filter(bad)) == ["lorem_ipsum", "curly_bracket", "too_few_sentences", ""]


def test_words_of_odd_length_are_dropped() -> None:
    texts = ("a b c d", "incomprehensibilities notwithstanding", PROSE, "", "日本語")
    assert reasons(word_length_filter(rows(*texts))) == ["short_words", "long_words", "", "", "short_words"]
    assert reasons(word_length_filter(rows(PROSE), min=5)) == ["short_words"]


def test_missing_values_are_dropped() -> None:
    given_rows = [
        Record("0", text="a"),
        Record("1", prompt="a", completion=" \n"),
        Record("2", messages=[]),
        Record("3", label="x"),
        Record("4", image=b"png"),
        Record("5", text="a", label="x"),
    ]
    assert reasons(missing_filter(given_rows)) == ["", "missing", "missing", "missing", "", ""]
    assert reasons(missing_filter(given_rows, columns=["label"])) == ["missing"] * 3 + ["", "missing", ""]


def test_corrupt_texts_are_dropped() -> None:
    texts = ("fine\n\té日👍", "b\ufffdd", "nul\x00", "\ue000", "1234567\x7f", "")
    assert reasons(corrupt_filter(rows(*texts))) == ["", "corrupt", "corrupt", "corrupt", "corrupt", ""]
    assert reasons(corrupt_filter(rows(*texts), max_share=0.2)) == ["", "corrupt", "corrupt", "corrupt", "", ""]
