"""Filters of quality: Gopher's and C4's rules, mean word length, missing and corrupt values.

Sources: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix A.1;
Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (C4). Values and reasons are datatrove's, so that counts
compare. Words are what stands between white space (datatrove splits them by spaCy, which sets punctuation apart); in
scripts without spaces each character is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from flywheel.process.text import Language, stop_words, words
from flywheel.record import Outcomes, Record, drop, texts

Column = Literal["text", "prompt", "completion", "messages", "chosen", "rejected", "image", "audio", "label"]
CONTENT: tuple[Column, ...] = ("text", "prompt", "completion", "messages", "chosen", "rejected", "image", "audio")

MEAN_LENGTH = (3, 10)
"""Characters of a word in the mean."""
HASHES, ELLIPSES = 0.1, 0.1
"""`#` and `...` for each word."""
BULLETS, ELLIPSIS_LINES = 0.9, 0.3
"""Share of the lines that begin with a bullet, and that end in an ellipsis."""
ALPHABETIC = 0.8
"""Share of words with a letter, at least."""
GOPHER_STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])

_LETTER, _LETTER_OR_DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"[^\W_]")
_BULLETS = ("\u2022", "-")
_ELLIPSES = ("...", "\u2026")

_ENDS = (".", "?", "!", '"', "'", "\u201d")
_SENTENCE_END = re.compile(r"[.?!][\"'\u201d\u2019)]*(?=\s|$)", re.MULTILINE)
_POLICIES = (
    "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
_LONGEST = 1_000
"""Characters of a word that is still one."""

# C0 controls but for white space, DEL, the replacement character, noncharacters, private use, lone surrogates.
_CORRUPT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\ufffd\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff]"
)


def quality_filter(
    rows: Iterable[Record],
    min_words: Annotated[int, Field(ge=0)] = 50,
    max_words: Annotated[int, Field(ge=1)] = 100_000,
    min_stop_words: Annotated[int, Field(ge=0)] = 2,
    language: Language = "en",
) -> Outcomes:
    """Drop texts that are no running prose, by Gopher's rules.

    Number of words: `gopher_short_doc`, `gopher_long_doc`; mean length outside 3 to 10: `gopher_below_avg_threshold`,
    `gopher_above_avg_threshold`; more than one `#` or `...` for ten words: `gopher_too_many_hashes`,
    `gopher_too_many_ellipsis`; lines with a bullet over 90 % or a final ellipsis over 30 %: `gopher_too_many_bullets`,
    `gopher_too_many_end_ellipsis`; words with a letter under 80 %: `gopher_below_alpha_threshold`; fewer than
    `min_stop_words` different stop words: `gopher_too_few_stop_words`. Pictures and recordings without text pass.
    """
    common = GOPHER_STOP_WORDS if language == "en" else stop_words(language)
    for row in rows:
        parts = texts(row)
        if not parts:
            yield row
            continue
        text = "\n".join(parts)
        found = words(text)
        other = [word for word in found if not word.isalpha()]
        reason = (
            _odd_words(found, other, min_words, max_words)
            or _odd_symbols(text, len(found))
            or _odd_lines(text)
            or _odd_alphabet(found, other, common, min_stop_words)
        )
        yield drop(row, reason) if reason else row


def c4_filter(
    rows: Iterable[Record],
    min_sentences: Annotated[int, Field(ge=1)] = 5,
    min_words: Annotated[int, Field(ge=0)] = 3,
) -> Outcomes:
    """Remove lines of web pages that are no sentences, and drop pages that are none, by C4's rules. Only `text`.

    A line goes that does not end in a terminal punctuation mark, has fewer than `min_words` words or one of more than
    1,000 characters, or speaks of JavaScript, cookies or policies. Pages go with filler text, `lorem_ipsum`; a curly
    bracket, `curly_bracket`; or fewer than `min_sentences` sentences left, `too_few_sentences`. Not for source code.
    """
    for row in rows:
        if row.text is None:
            yield row
            continue
        small = row.text.lower()
        if "lorem ipsum" in small:
            yield drop(row, "lorem_ipsum")
        elif "{" in row.text:
            yield drop(row, "curly_bracket")
        else:
            policies = tuple(phrase for phrase in _POLICIES if phrase in small)
            lines = map(str.strip, row.text.splitlines())
            text = "\n".join([line for line in lines if _is_sentence(line, min_words, policies)])
            sentences = len(_SENTENCE_END.findall(text))
            yield drop(row, "too_few_sentences") if sentences < min_sentences else row.with_fields(text=text)


def word_length_filter(
    rows: Iterable[Record],
    min: Annotated[float, Field(ge=0)] = 3.0,
    max: Annotated[float, Field(gt=0)] = 10.0,
) -> Outcomes:
    """Drop texts whose words have fewer than `min` or more than `max` characters in the mean.

    Reasons: `short_words`, `long_words`. Rows without a word pass.
    """
    for row in rows:
        found = [word for part in texts(row) for word in words(part)]
        mean = sum(map(len, found)) / len(found) if found else min
        if mean < min:
            yield drop(row, "short_words")
        else:
            yield drop(row, "long_words") if mean > max and found else row


def missing_filter(rows: Iterable[Record], columns: list[Column] | None = None) -> Outcomes:
    """Drop rows in which one of the `columns` is missing or blank: `missing`.

    Without `columns`: rows in which one that they have is blank, or that have nothing but a label.
    """
    for row in rows:
        given = columns or [name for name in CONTENT if getattr(row, name) is not None]
        yield row if given and not any(_is_missing(getattr(row, name)) for name in given) else drop(row, "missing")


def corrupt_filter(rows: Iterable[Record], max_share: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> Outcomes:
    """Drop rows in whose texts more than `max_share` of the characters are damage: `corrupt`.

    Damage: U+FFFD, control characters, noncharacters, private use, lone surrogates.
    """
    for row in rows:
        damaged = length = 0
        for part in texts(row):
            length += len(part)
            if _CORRUPT.search(part):
                damaged += len(_CORRUPT.findall(part))
        yield drop(row, "corrupt", f"{damaged} of {length}") if damaged > max_share * length else row


def _odd_words(found: Sequence[str], other: Sequence[str], min_words: int, max_words: int) -> str:
    symbols = [word for word in other if not (word[0].isalnum() or _LETTER_OR_DIGIT.search(word))]
    number = len(found) - len(symbols)
    if number < min_words:
        return "gopher_short_doc"
    if number > max_words:
        return "gopher_long_doc"
    mean = (sum(map(len, found)) - sum(map(len, symbols))) / number if number else MEAN_LENGTH[0]
    if mean < MEAN_LENGTH[0]:
        return "gopher_below_avg_threshold"
    return "gopher_above_avg_threshold" if mean > MEAN_LENGTH[1] else ""


def _odd_symbols(text: str, number: int) -> str:
    if text.count("#") > HASHES * number:
        return "gopher_too_many_hashes"
    return "gopher_too_many_ellipsis" if sum(map(text.count, _ELLIPSES)) > ELLIPSES * number else ""


def _odd_lines(text: str) -> str:
    """Lines are looked at only where there are marks enough to break a rule."""
    lines = text.splitlines()
    if sum(map(text.count, _BULLETS)) > BULLETS * len(lines):
        bullets = sum(line.lstrip().startswith(_BULLETS) for line in lines)
        if bullets > BULLETS * len(lines):
            return "gopher_too_many_bullets"
    if sum(map(text.count, _ELLIPSES)) > ELLIPSIS_LINES * len(lines):
        open_ends = sum(line.rstrip().endswith(_ELLIPSES) for line in lines)
        if open_ends > ELLIPSIS_LINES * len(lines):
            return "gopher_too_many_end_ellipsis"
    return ""


def _odd_alphabet(found: Sequence[str], other: Sequence[str], common: frozenset[str], least: int) -> str:
    alphabetic = len(found) - len(other)
    if alphabetic < ALPHABETIC * len(found):
        alphabetic += sum(word[0].isalpha() or _LETTER.search(word) is not None for word in other)
    if alphabetic < ALPHABETIC * len(found):
        return "gopher_below_alpha_threshold"
    return "gopher_too_few_stop_words" if len(common.intersection(found)) < least else ""


def _is_sentence(line: str, min_words: int, policies: Sequence[str]) -> bool:
    if not line.endswith(_ENDS) or line.endswith(_ELLIPSES):
        return False
    found = line.split()
    if len(found) < min_words or len(max(found, key=len)) > _LONGEST:
        return False
    return not policies or not any(map(line.lower().__contains__, policies))


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return not value
