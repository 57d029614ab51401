from collections.abc import Callable, Iterable

import ftfy
import pytest
from ftfy import badness
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flywheel.process import unicode
from flywheel.process.table import OPERATIONS
from flywheel.process.text import (
    length_filter,
    lowercase,
    normalize_newlines,
    normalize_whitespace,
    remove_punctuation,
    remove_stop_words,
    stop_words,
)
from flywheel.record import Dropped, Outcomes, Record, texts

Operation = Callable[[Iterable[Record]], Outcomes]

MODULES = ("text", "unicode", "markup", "mail", "spelling", "language", "repetition", "quality")
ARGUMENTS = {"language_filter": {"keep": ["en"]}}
NAMES = [name for name, op in OPERATIONS.items() if op.kind == "rows" and op.module.rpartition(".")[2] in MODULES]
CATEGORIES = {name: [c for c in chars if c != "-"] for name, chars in badness.MOJIBAKE_CATEGORIES.items()}
LITERALS = sorted({c for c in badness.BADNESS_RE.pattern if not c.isascii()})
OTHERS = list("aZ 1.?\n\r\t&<;$'\x1b\x00") + list(
    "\xa0\u0301\u3000\ufb01\uff9f\u201c\u201d\u2018\u2019\u201e\u2014\ufeff日и"
)


def rows(*given_texts: str) -> list[Record]:
    return [Record(id=str(n), text=text, origin={"path": f"{n}.txt"}) for n, text in enumerate(given_texts)]


def outcomes(result: Iterable[object]) -> list[object]:
    return [row.text if isinstance(row, Record) else getattr(row, "reason", None) for row in result]


def changed(operation: Operation, text: str) -> object:
    return outcomes(operation(rows(text)))[0]


def test_newlines_and_line_ends_are_normalized_and_tabs_stay() -> None:
    given_rows = rows("\ufeffa \t\r\n\tb\rc\n\n\n", "x", " \r\n", "")
    assert outcomes(normalize_newlines(given_rows)) == ["a\n\tb\nc\n", "x\n", "empty", "empty"]
    pair = Record(id="p", prompt="say \r\n", completion="yes ")
    assert list(normalize_newlines([pair])) == [Record(id="p", prompt="say", completion="yes")]


@given(st.text())
def test_normalizing_twice_changes_nothing_more(text: str) -> None:
    once = [r for r in normalize_newlines(rows(text.lstrip("\ufeff"))) if isinstance(r, Record)]
    assert list(normalize_newlines(once)) == once


@pytest.mark.parametrize(
    ("most", "text", "expected"),
    [
        (2, " a  b\t c \r\n\r\n\r\n\r\nd\xa0\u3000e\u2028f ", "a b c\n\nd e\nf"),
        (1, "a\n\n\nb", "a\nb"),
        (0, " a \n\n b", "a b"),
        (2, " \t\n ", "empty"),
    ],
)
def test_white_space_is_normalized(most: int, text: str, expected: str) -> None:
    assert outcomes(normalize_whitespace(rows(text), max_newlines=most)) == [expected]


@given(st.text(" \n\r\t\x0b\xa0\u2028ab"), st.integers(0, 3))
def test_white_space_is_one_space_or_few_line_ends(text: str, most: int) -> None:
    for row in normalize_whitespace(rows(text), max_newlines=most):
        if isinstance(row, Record):
            assert row.text is not None
            assert row.text.split() == text.split()
            assert not {"  ", " \n", "\n ", "\n" * (most + 1)} & {
                row.text[i : i + k] for i in range(len(row.text)) for k in (2, most + 1)
            }


def test_case_punctuation_and_stop_words() -> None:
    assert changed(lowercase, "ÀB İ") == "àb i̇"
    assert changed(remove_punctuation, "“Don\u2019t!” — a+b (1,5 €) «x» 日本。") == "Dont  ab 15 € x 日本"
    assert changed(remove_punctuation, "a-b, c!") == "ab c"
    assert changed(remove_punctuation, "?!…") == "empty"
    assert changed(remove_stop_words, "The cat is on the mat, and it sleeps.\nNOT here") == "cat mat, sleeps.\n"
    assert outcomes(remove_stop_words(rows("Der Hund und die Katze"), language="de")) == ["Hund Katze"]
    assert "the" in stop_words("en")


def test_lengths_are_bounded_inclusively_and_pictures_pass() -> None:
    picture = Record(id="i", image=b"png")
    result = list(length_filter([*rows("a", "ab", "abc", "abcd"), picture], min=2, max=3))
    assert outcomes(result) == ["too_short", "ab", "abc", "too_long", None]
    assert result[0] == Dropped("0", "too_short", "0.txt")
    assert outcomes(length_filter(rows("a b", "a b c", "日本語"), min=3, unit="words")) == [
        "too_short",
        "a b c",
        "日本語",
    ]


def test_unicode_is_fixed_and_normalized() -> None:
    assert changed(unicode.fix_unicode, "schÃ¶n â€œsoâ€\x9d &amp; ﬁx\r\n") == 'schön "so" & fix\n'
    assert changed(unicode.fix_unicode, "<b>&amp;</b>\n&amp;") == "<b>&amp;</b>\n&amp;"
    assert changed(unicode.normalize_unicode, "e\u0301") == "\u00e9"
    assert outcomes(unicode.normalize_unicode(rows("ﬁ²"), form="NFKC")) == ["fi2"]


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(st.sampled_from([c for chars in CATEGORIES.values() for c in chars] + LITERALS + OTHERS), max_size=12),
        st.text(st.characters(), max_size=20),
        st.builds(
            lambda text, codec, tail: text.encode().decode(codec, "ignore") + tail,
            st.text("é\u2019“ü—€日 Aи\n", max_size=8),
            st.sampled_from(["latin-1", "cp1252", "cp1251", "mac_roman", "cp437"]),
            st.sampled_from(["", "\n\u2019s", "\n<p>&eacute;", "&lt;\ufffd", "\n\nÃ ", "\ud83d\ude00"]),
        ),
    )
)
@example("\uff06amp;\n<\n\uff06lt;")
@example("Œ\n\u2019")
def test_fixing_equals_ftfy(text: str) -> None:
    assert unicode.fixed(text) == ftfy.fix_text(text)


def test_fixing_equals_ftfy_on_every_pair_of_kinds_of_characters() -> None:
    ends = [c for chars in CATEGORIES.values() for c in (chars[0], chars[-1])]
    for one in (kinds := [*ends, *LITERALS[::5], *OTHERS]):
        text = "\n".join(f"a{one}{other}b" for other in kinds if "<" not in (one, other))
        assert unicode.fixed(text) == ftfy.fix_text(text)


def test_fixing_equals_ftfy_where_it_breaks_long_lines() -> None:
    text = "a" * 999_998 + "e\u0301\u0301 &amp; Ã©\n“b”"
    assert unicode.fixed(text) == ftfy.fix_text(text)


def test_controls_go_and_separate() -> None:
    text = "a\x00b\x1b[1;31mred\x1b[0m\x07\tc\x0cd\x85e\x9f\r\n"
    assert changed(unicode.remove_control_characters, text) == "abred\tc\nd\ne\r\n"
    assert changed(unicode.remove_control_characters, "\x00\x7f") == "empty"


def test_the_invisible_goes_and_joiners_stay_where_they_shape_letters() -> None:
    invisible = "\u200b\u2060\ufeff\xad\u202e\u2066\u200f\U000e0041"
    assert changed(unicode.remove_zero_width, f"pass{invisible}word a\u200db") == "password ab"
    for shaped in (
        "می\u200cخو\u0627\u0647م",
        "क्\u200dष",
        "👨\u200d👩\u200d👧",
        "❤\ufe0f",
        "🏴\U000e0067\U000e0062\U000e007f",
    ):
        assert changed(unicode.remove_zero_width, shaped) == shaped
    assert changed(unicode.remove_zero_width, "a\ufe00\ufe01\U000e0101b") == "a\ufe00b"
    assert changed(unicode.remove_zero_width, "\u200b") == "empty"


def test_emoji_go_and_signs_of_text_stay() -> None:
    emoji = "👍🏽 👨\u200d👩\u200d👧 ❤\ufe0f ☺ 🇩🇪 1\ufe0f\u20e3 🏴\U000e0067\U000e0062\U000e007f"
    assert changed(unicode.remove_emoji, f"a{emoji}b".replace(" ", "")) == "ab"
    assert changed(unicode.remove_emoji, "#5 * 1 © ™ ↔ → 日本") == "#5 * 1 © ™ ↔ → 日本"
    assert changed(unicode.remove_emoji, "👍") == "empty"


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=4))
def test_every_row_comes_out_once_in_order_and_alike(name: str, given_texts: list[str]) -> None:
    talk = Record("talk", messages=[{"role": "user", "content": "Hi there, how are you?"}], chosen="Well, thank you.")
    given_rows = [*rows(*given_texts), talk]
    operation = OPERATIONS[name].function(name)
    first = list(operation(iter(given_rows), **ARGUMENTS.get(name, {})))
    assert [row.id for row in first] == [row.id for row in given_rows]
    assert first == list(operation(iter(given_rows), **ARGUMENTS.get(name, {})))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "missing_filter"])
def test_pictures_and_recordings_pass(name: str) -> None:
    media = [Record("i", image=b"png"), Record("a", audio=b"wav", label="x")]
    assert list(OPERATIONS[name].function(name)(media, **ARGUMENTS.get(name, {}))) == media


def test_contents_of_messages_are_texts_and_an_emptied_one_drops_the_row() -> None:
    talk = Record("t", messages=[{"role": "user", "content": "HI"}], chosen=[{"role": "assistant", "content": "Yo!"}])
    (result,) = lowercase([talk])
    assert isinstance(result, Record)
    assert texts(result) == ["hi", "yo!"]
    assert result.messages == [{"role": "user", "content": "hi"}]
    emptied = Record("e", prompt="?!", completion="fine")
    assert outcomes(remove_punctuation([emptied])) == ["empty"]
    caption = Record("c", image=b"png", text="")
    assert list(lowercase([caption])) == [caption]
