import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.cleaning import OPERATIONS, check_operations, length_filter, normalize_newlines, unicode_nfc
from flywheel.errors import RecipeError
from flywheel.record import Dropped, Record


def rows(*texts: str) -> list[Record]:
    return [Record(id=str(n), text=text, origin={"path": f"{n}.txt"}) for n, text in enumerate(texts)]


def outcome(result: list[Record | Dropped]) -> list[str | None]:
    return [r.reason if isinstance(r, Dropped) else r.text for r in result]


def test_newlines_and_line_ends_are_normalized_and_tabs_stay() -> None:
    given_rows = rows("\ufeffa \t\r\n\tb\rc\n\n\n", "x", " \r\n", "")
    assert outcome(list(normalize_newlines(given_rows))) == ["a\n\tb\nc\n", "x\n", "empty", "empty"]
    pair = Record(id="p", prompt="say \r\n", completion="yes ")
    assert list(normalize_newlines([pair])) == [Record(id="p", prompt="say", completion="yes")]


@given(st.text())
def test_normalizing_twice_changes_nothing_more(text: str) -> None:
    once = [r for r in normalize_newlines(rows(text.lstrip("\ufeff"))) if isinstance(r, Record)]
    assert list(normalize_newlines(once)) == once


def test_characters_are_composed() -> None:
    assert outcome(list(unicode_nfc(rows("e\u0301")))) == ["\u00e9"]


def test_lengths_are_bounded_inclusively_and_pictures_pass() -> None:
    picture = Record(id="i", image=b"png")
    result = list(length_filter([*rows("a", "ab", "abc", "abcd"), picture], min=2, max=3))
    assert outcome(result) == ["too_short", "ab", "abc", "too_long", None]
    assert result[0] == Dropped("0", "too_short", "0.txt")


@given(st.lists(st.text(max_size=30)), st.sampled_from(sorted(OPERATIONS.keys() - {"docstring_pairs"})))
def test_every_row_comes_out_once(texts: list[str], name: str) -> None:
    result = list(OPERATIONS[name](rows(*texts)))
    assert [r.id for r in result] == [str(n) for n in range(len(texts))]


def test_good_operations_pass_the_check() -> None:
    check_operations(
        ["normalize_newlines", {"near_dedup": {"threshold": 1}}, {"length_filter": {"min": 1, "max": None}}]
    )
    check_operations([{"docstring_pairs": {"max_chars": 900}}], "finetune.process")


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("near_dedupe", r"data.process\[1\].*found: +near_dedupe.*did you mean near_dedup\?"),
        ({"near_dedup": {"treshold": 0.8}}, r"treshold.*did you mean threshold\?"),
        ({"near_dedup": {"threshold": 1.5}}, r"near_dedup.threshold.*1.5.*less than or equal to 1"),
        ({"near_dedup": {"threshold": "0.8"}}, r"'0.8'.*valid number"),
        ({"exact_dedup": {"by": "text"}}, r"by.*no arguments.*leave it out"),
        ({"length_filter": {"min": 9, "max": 3}}, r"max below min"),
        ({"exact_dedup": {}, "unicode_nfc": {}}, r"2 operations in one item"),
        ({}, r"0 operations"),
        ("docstring_pairs", r"finetune.process"),
    ],
)
def test_a_wrong_operation_is_named_with_its_remedy(
    operation: str | dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        check_operations(["exact_dedup", operation])
