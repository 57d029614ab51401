import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.process.spelling import _known, fix_typos
from flywheel.record import Record


def repaired(text: str, corrections: dict[str, str] | None = None) -> str | None:
    (result,) = fix_typos([Record("x", text=text)], corrections)
    assert isinstance(result, Record)
    return result.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I recieve teh mail.", "I receive the mail."),
        ("Definately SEPERATE\u2014\u201cfreind\u2019s\u201d", "Definitely SEPARATE\u2014\u201cfriend\u2019s\u201d"),
        ("in febuary", "in February"),
        (
            "The codec reads stdin; TEH colour, honour, \u0420ecieve",
            "The codec reads stdin; TEH colour, honour, \u0420ecieve",
        ),
        ("naïve recieve", "naïve receive"),
        ("teh_name /teh/ a.teh b@teh.org teh-end", "teh_name /teh/ a.teh b@teh.org the-end"),
    ],
)
def test_known_misspellings_are_repaired_and_nothing_else(text: str, expected: str) -> None:
    assert repaired(text) == expected


def test_corrections_add_to_the_list() -> None:
    assert repaired("Strase teh", {"strase": "Straße"}) == "Straße the"


def test_the_list_is_one_to_one_and_settled() -> None:
    known = _known()
    assert len(known) > 450
    assert not known.keys() & {right.lower() for right in known.values()}
    assert all(wrong.isalpha() and right.isalpha() for wrong, right in known.items() if right != "doesn't")


@given(st.lists(st.sampled_from(["the", "Teh", "x1teh", " ", "-", "é", "\u2019", "_", "\n"])).map("".join))
def test_repairing_twice_changes_nothing_more(text: str) -> None:
    if text.strip():
        once = repaired(text)
        assert once is not None
        assert repaired(once) == once
