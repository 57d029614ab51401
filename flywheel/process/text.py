"""Operations on plain text: line ends, white space, case, punctuation, stop words, length."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from flywheel.record import Outcomes, Record, drop, map_texts, texts

if TYPE_CHECKING:
    import regex

Language = Literal[
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "gu", "he", "hi", "hu", "id", "it", "ko",
    "ms", "nb", "nl", "pl", "pt", "ro", "ru", "sk", "sv", "tr", "uk", "vi",
]  # fmt: skip
"""ISO 639-1 codes of the languages, written with spaces between words, for which there are stop words."""

_ODD_SPACES = re.compile("[\t\x0b\x0c\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HAS_SPACELESS = re.compile(f"[{_SPACELESS}]")
_SPACELESS_WORD = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")
_ASCII = string.punctuation.encode()
_BETWEEN_WORDS = re.compile(r"([^\w'\u2019]+)")


def change_texts(rows: Iterable[Record], change: Callable[[str], str]) -> Outcomes:
    """Change every text of every row; a row one of whose texts becomes blank is dropped as `empty`.

    Pictures and recordings without text pass as they are.
    """
    for row in rows:
        changed = map_texts(row, change)
        yield drop(row, "empty") if _emptied(row, changed) else changed


def normalize_newlines(rows: Iterable[Record]) -> Outcomes:
    """One newline at the end of each line and text; no byte order mark, no spaces at the end of lines. Tabs stay.

    A text that was nothing else is dropped as `empty`.
    """
    for row in rows:
        changed = map_texts(row, _normal_lines)
        if _emptied(row, changed):
            yield drop(row, "empty")
        else:
            yield changed.with_fields(text=f"{changed.text}\n") if changed.text else changed


def normalize_whitespace(rows: Iterable[Record], max_newlines: Annotated[int, Field(ge=0)] = 2) -> Outcomes:
    """One space between words, none around lines, and at most `max_newlines` line ends in a row.

    Every kind of Unicode space and line end counts; 0 puts a text on one line. Indentation goes: not for source code.
    """
    return change_texts(rows, partial(_normal_spaces, max_newlines=max_newlines))


def lowercase(rows: Iterable[Record]) -> Outcomes:
    """Lower-case letters only (Unicode's full mapping)."""
    return change_texts(rows, str.lower)


def remove_punctuation(rows: Iterable[Record]) -> Outcomes:
    """Remove ASCII punctuation (`string.punctuation`) and every character of Unicode's category P. Spaces stay."""
    return change_texts(rows, _without_punctuation)


def remove_stop_words(rows: Iterable[Record], language: Language = "en") -> Outcomes:
    """Remove the most common words of a language, in any case, with the space behind them.

    The lists are scikit-learn's for English (318 words) and those of the package `stop-words` for the others.
    """
    return change_texts(rows, partial(_without_words, common=stop_words(language)))


def length_filter(
    rows: Iterable[Record],
    min: Annotated[int, Field(ge=0)] = 0,
    max: Annotated[int | None, Field(ge=1)] = None,
    unit: Literal["characters", "words"] = "characters",
) -> Outcomes:
    """Drop rows of fewer than `min` or more than `max` characters, or words, over all their texts.

    Reasons: `too_short`, `too_long`. Pictures and recordings without text pass.
    """
    for row in rows:
        parts = texts(row)
        length = sum(map(len, parts)) if unit == "characters" else sum(len(words(part)) for part in parts)
        if parts and length < min:
            yield drop(row, "too_short")
        elif parts and max is not None and length > max:
            yield drop(row, "too_long")
        else:
            yield row


@cache
def stop_words(language: Language) -> frozenset[str]:
    """The most common words of a language, in lower case."""
    if language == "en":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return frozenset(ENGLISH_STOP_WORDS)
    from stop_words import get_stop_words  # type: ignore[import-untyped]

    return frozenset(get_stop_words(language))


def words(text: str) -> list[str]:
    """What stands between white space; in scripts without spaces, each character."""
    if not text.isascii() and _HAS_SPACELESS.search(text):
        return _SPACELESS_WORD.findall(text)
    return text.split()


def _emptied(before: Record, after: Record) -> bool:
    """Whether a row has lost one of its texts, or has never had anything in its only one."""
    if after is not before:
        pairs = zip(texts(before), texts(after), strict=True)
        if any(_blank(new) and not _blank(old) for old, new in pairs):
            return True
    return after.text is not None and _blank(after.text) and after.image is None and after.audio is None


def _blank(text: str) -> bool:
    return not text or text.isspace()


def _normal_lines(text: str) -> str:
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    return text.rstrip(" \t\n") if text[-1:] in " \t\n" else text


def _normal_spaces(text: str, max_newlines: int) -> str:
    if max_newlines == 0:
        return " ".join(text.split())
    if _ODD_SPACES.search(text) or "  " in text or " \n" in text or "\n " in text:
        text = "\n".join([" ".join(line.split()) for line in text.splitlines()])
    text, most = text.strip(), "\n" * max_newlines
    while f"{most}\n" in text:
        text = re.sub(f"{most}\n+", most, text)
    return text


@cache
def _punctuation() -> regex.Pattern[str]:
    """The characters of category P beyond ASCII."""
    import regex

    return regex.compile(r"(?V1)[\p{P}--[\x00-\x7f]]")


def _without_punctuation(text: str) -> str:
    if not text.isascii():
        text = _punctuation().sub("", text)
    # The bytes of other characters are never those of ASCII.
    return text.encode(errors="surrogatepass").translate(None, _ASCII).decode(errors="surrogatepass")


def _without_words(text: str, common: frozenset[str]) -> str:
    parts = _BETWEEN_WORDS.split(text)
    kept: list[str] = []
    for word, between in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if word.lower() not in common:
            kept += word, between
        elif between != " ":
            if kept and kept[-1] == " ":
                kept.pop()
            kept.append(between)
    return "".join(kept)
