"""Operations on characters: mojibake, normal forms, what cannot be seen, emoji."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from flywheel.process.text import change_texts
from flywheel.record import Outcomes, Record

if TYPE_CHECKING:
    import regex

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

_ASCII_FLAWS = "\x00-\x08\x0b\x0d-\x1f\x7f"
"""What ftfy changes in ASCII text, character references aside."""
_ASCII_FLAW = re.compile(f"[{_ASCII_FLAWS}]")
_REFERENCE = re.compile("&#?[0-9A-Za-z]{1,24};")
_SINGLE_QUOTES, _DOUBLE_QUOTES = "\u02bc\u2018\u2019\u201a\u201b", "\u201c\u201d\u201e\u201f"
_RARE = re.compile("[^\x00-\x7f\xa0\u2013\u2014\u2022\u2026]")
"""Anything but ASCII and the typography that never is a flaw in itself."""
_LONG = 1_000_000
"""ftfy breaks longer lines up, at places that depend on what stands before them."""
_LINE_START = re.compile("(?:\\A|\n)[\xc2\xc3] ")
_REACH = 6
"""Characters of the longest alternative of ftfy's pattern of mojibake."""

# C0 and C1, a terminal's escape sequences as a whole; what separates becomes a line end.
_ANY_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_CONTROL = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SEPARATING = re.compile("[\x0b\x0c\x85]")

_UNSEEN = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufff8\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_JOINERS, _SELECTORS = "\u200c\u200d", "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_INVISIBLE = re.compile(f"[{_UNSEEN}{_JOINERS}{_SELECTORS}]")
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
"""Flags of England, Texas, ... are spelled in tags."""
# Arabic to Myanmar, Khmer, Mongolian; pictographs: here a joiner shapes what is seen.
_JOINED = re.compile("[\u0600-\u109f\u1780-\u18af\u2190-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff]")
_SELECTOR = re.compile(f"[{_SELECTORS}]")
_MAYBE_EMOJI = re.compile("[\u20e3\u231a-\u2b55\ufe0f\U0001f000-\U0001ffff]")


def fix_unicode(rows: Iterable[Record]) -> Outcomes:
    """Repair what wrong decoding did (mojibake), character references, ligatures, quotes: exactly `ftfy.fix_text`.

    ftfy itself sees only the lines it could change.
    """
    return change_texts(rows, fixed)


def normalize_unicode(rows: Iterable[Record], form: Form = "NFC") -> Outcomes:
    """Bring characters into a normal form: NFC composes, NFKC also unifies widths, ligatures and superscripts."""
    return change_texts(rows, partial(_normalized, form=form))


def remove_control_characters(rows: Iterable[Record]) -> Outcomes:
    """Remove C0 and C1 control characters and terminal escapes; tabs and line ends stay.

    Form feed, vertical tab and next line become a line end.
    """
    return change_texts(rows, _without_controls)


def remove_zero_width(rows: Iterable[Record]) -> Outcomes:
    """Remove what has no width: zero-width spaces, soft hyphens, bidi controls, tags, runs of variation selectors.

    Joiners stay between letters of scripts that need them (Arabic, Indic, ...) and inside emoji.
    """
    return change_texts(rows, _without_invisible)


def remove_emoji(rows: Iterable[Record]) -> Outcomes:
    """Remove emoji: sequences, flags, keycaps, and symbols such as U+2600 to U+27BF that are pictographs.

    Signs of text stay: arrows, copyright, trade mark.
    """
    return change_texts(rows, _without_emoji)


def fixed(text: str) -> str:
    """`ftfy.fix_text(text)`, faster."""
    simple = _simply_fixed(text)
    return _by_line(text) if simple is None else simple


def _by_line(text: str) -> str:
    """As ftfy does it: a line at a time, and no character references after the first `<`."""
    import ftfy

    lines = _lines(text)
    if max(map(len, lines)) > _LONG:
        return ftfy.fix_text(text)
    markup, done = False, []
    for line in lines:
        markup = markup or "<" in line
        simple = _simply_fixed(line, references=not markup)
        done.append(_line_fixed(line, references=not markup) if simple is None else simple)
    return "".join(done)


def _line_fixed(line: str, references: bool) -> str:
    """A line that has something for ftfy. Where its first two steps leave nothing but what is simple, they are enough:
    further rounds of all its steps would begin with the same text.
    """
    import ftfy

    plain = ftfy.fixes.unescape_html(line) if references else line
    if references and _REFERENCE.search(plain):
        return ftfy.fix_text(line)
    simple = _simply_fixed(ftfy.fix_encoding(plain), references)
    return ftfy.fix_text(line, unescape_html="auto" if references else False) if simple is None else simple


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + lines[-1:]


def _simply_fixed(text: str, references: bool = True) -> str | None:
    """The text with straight quotes, plain ligatures and widths, composed; none where ftfy could change more.

    ftfy repeats its steps until nothing changes, so the outcome is looked at again.
    """
    straight = _straight(text)
    if _flawed(straight, references):
        return None
    rare = "" if straight.isascii() else "".join(_RARE.findall(straight))
    if not rare:
        return straight
    tables = _tables()
    if tables.stopping.search(rare) or _mojibake(text):
        return None
    simple = straight.translate(tables.plain) if tables.changing.search(rare) else straight
    simple = unicodedata.normalize("NFC", simple)
    if simple != straight and (
        _flawed(simple, references)
        or tables.stopping.search(simple)
        or tables.changing.search(simple)
        or _mojibake(simple)
    ):
        return None
    return simple


def _straight(text: str) -> str:
    if text.isascii():
        return text
    for quote in _SINGLE_QUOTES:
        text = text.replace(quote, "'")
    for quote in _DOUBLE_QUOTES:
        text = text.replace(quote, '"')
    return text


def _flawed(text: str, references: bool) -> bool:
    if references and "&" in text and _REFERENCE.search(text):
        return True
    return _ASCII_FLAW.search(text) is not None


def _mojibake(text: str) -> bool:
    """Whether ftfy would try another encoding for a line of the text: looks around the places that it could mean."""
    from ftfy.badness import BADNESS_RE

    return _LINE_START.search(text) is not None or any(
        BADNESS_RE.search(text, max(0, found.start() - _REACH), found.end() + _REACH)
        for found in _tables().doubtful.finditer(text)
    )


class _Tables(NamedTuple):
    """Characters by what they mean to ftfy."""

    doubtful: re.Pattern[str]
    """What any mojibake has in it: every alternative of ftfy's pattern needs one of a few characters, or two neighbours
    of its categories that are not both Greek or Cyrillic letters (but for two pairs)."""
    stopping: re.Pattern[str]
    """What ftfy changes in ways of its own."""
    changing: re.Pattern[str]
    """What ftfy replaces one by one."""
    plain: dict[int, str]
    """By what."""


@cache
def _tables() -> _Tables:
    from ftfy import badness, chardata

    categories = dict(badness.MOJIBAKE_CATEGORIES)
    letters = categories.pop("lower_common") + categories.pop("upper_common")
    literals = "".join({c for c in badness.BADNESS_RE.pattern if ord(c) > 127 and not "\u0370" <= c < "\u0530"})
    others = "".join(categories.values()) + literals
    signs = "\x80-\x9f\u0152\u0153\xc2\xc3"
    controls = "".join(chr(c) for c in chardata.CONTROL_CHARS if c > 127)
    singles = chardata.LIGATURES | chardata.WIDTH_MAP
    return _Tables(
        re.compile(
            # A set that any match starts with lets the engine skip the rest.
            f"[{signs}{others}{letters}](?:(?<=[{signs}])|(?<=[{others}])[{others}{letters}]|(?<=[{letters}])[{others}]"
            "|(?<=[\u0412\u0432])\u0402)"
        ),
        re.compile(f"[\x80-\x9f\u2028\u2029\ud800-\udfff{controls}]"),
        re.compile(f"[{re.escape(''.join(map(chr, singles)))}]"),
        {code: _straight(plain.translate(chardata.WIDTH_MAP)) for code, plain in singles.items()},
    )


def _normalized(text: str, form: Form) -> str:
    return text if text.isascii() else unicodedata.normalize(form, text)


def _without_controls(text: str) -> str:
    if not _ANY_CONTROL.search(text):
        return text
    return _CONTROL.sub("", _SEPARATING.sub("\n", text))


def _without_invisible(text: str) -> str:
    if text.isascii():
        return text
    return _INVISIBLE.sub(_seen, text)


def _seen(match: re.Match[str]) -> str:
    """The character where it shapes what is seen, and nothing elsewhere."""
    character, text, place = match[0], match.string, match.start()
    before, after = text[max(0, place - 1) : place], text[place + 1 : place + 2]
    if character in _JOINERS:
        kept = bool(_JOINED.match(before) and _JOINED.match(after))
    elif _SELECTOR.match(character):
        kept = not _SELECTOR.match(before)
    else:
        flag = _FLAG.match(text, max(0, text.rfind("\U0001f3f4", max(0, place - 7), place)))
        kept = flag is not None and flag.end() > place
    return character if kept else ""


def _without_emoji(text: str) -> str:
    if text.isascii() or not _MAYBE_EMOJI.search(text):
        return text
    plain: str = _emoji().sub("", text)
    return plain


@cache
def _emoji() -> regex.Pattern[str]:
    """Emoji sequences (Unicode Technical Standard 51, section 1.4.9), and pictographs that stand alone."""
    import regex

    alone = r"[\p{Extended_Pictographic}&&[\u2600-\u27bf\U0001f000-\U0001ffff]]"
    one = rf"(?:[\p{{Emoji_Presentation}}{alone}]|\p{{Emoji}}(?=\ufe0f))"
    shaped = rf"{one}(?:\p{{Emoji_Modifier}}|\ufe0f?\u20e3?)[\U000e0020-\U000e007f]*"
    return regex.compile(rf"(?V1)\p{{RI}}\p{{RI}}?|[0-9#*]\ufe0f?\u20e3|{shaped}(?:\u200d{shaped})*")
