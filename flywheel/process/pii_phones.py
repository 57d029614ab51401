"""Phone numbers: international ones, national ones that show what they are, and others after a word such as `Tel.`"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from flywheel.process.pii_views import View
from flywheel.process.spans import Match

_LEFT, _RIGHT = r"(?<![0-9A-Za-z+])(?<![0-9A-Za-z][.-])", r"(?![0-9A-Za-z])(?![.-][0-9])"
_EXTENSION = re.compile(r",? ?(?:x|ext\.?|extension) ?[0-9]{1,6}(?![0-9A-Za-z])")
_DATE = re.compile(
    r"(?<![0-9])(?:(?:19|20)[0-9]{2}([-/. ])(?:0?[1-9]|1[0-2])\1[0-3]?[0-9](?![0-9])"
    r"|[0-3]?[0-9]([-/. ])[0-3]?[0-9]\2(?:19|20)[0-9]{2}(?![0-9])|(?:19|20)[0-9]{2} ?[-/] ?(?:19|20)[0-9]{2}(?![0-9]))"
)
_CUE = re.compile(
    r"(?i)(?<![a-z])(?:tel[eé](?:ph|f)|t[ée]l(?![a-z]| aviv)|fono|celular|cell?(?![a-z])|cellphone"
    r"|mob(?:ile|il)?(?![a-z])|m[óo]vil|handy|fax|call(?![a-z])|ring(?![a-z])|dial|whatsapp|sms(?![a-z])|text(?![a-z])|hotline|contact|ph(?![a-z])"
    r"|reach (?:me|us|him|her|them)|rufnummer|тел|моб)|phone|電話|电话|手机|☎|📞|📱"
)
_NOT_PHONE = re.compile(
    r"(?i)order|invoice|ticket|\bref|\bcase|model|serial|zip|code|i[sb][sb]n|papers?|price|[$€£]|\bid\b|account|batch|version"
    r"|[0-9]{2}.?[0-9]"
)


_DOUBTFUL = re.compile(r"[0-9]+\.[0-9]+|0(?!1[5-7])[0-9]{3} [0-9]{4} [0-9]{4}")


def phones(view: View) -> Iterator[Match]:
    """Phone numbers with their extensions."""
    if view.digits < 7:
        return
    for sign, pattern, accept in FORMS:
        if sign not in view.text:
            continue
        for match in pattern.finditer(view.text, view.low, view.high + 1):
            end = accept(view.text, match)
            if end:
                extension = _EXTENSION.match(view.text, end)
                yield Match("phone", match.start(), extension.end() if extension else end)


def _international(text: str, match: re.Match[str]) -> int:
    """The end of the longest valid number from its country code on, or else of the longest possible one."""
    written, possible = match[0], 0
    if written.startswith("00") and written.isdigit():
        return _cued(text, match)
    if re.fullmatch(r"\+[0-9]+\.[0-9]+", written):
        return match.end() if _standing(written[1:].replace(".", "")) == 2 and len(written.split(".")[0]) < 5 else 0
    for _ in range(4):
        digits = re.sub(r"[^0-9]", "", written.replace("(0)", ""))
        standing = _standing(digits.removeprefix("00") if written.startswith("00") else digits)
        if standing == 2:
            return match.start() + len(written)
        if standing == 1 and not possible and not written.startswith("00"):
            possible = match.start() + len(written)
        shorter = re.match(r".*[0-9](?=[^0-9]+[0-9]+$)", written)
        if shorter is None:
            break
        written = shorter[0]
    return possible


@lru_cache(maxsize=4096)
def _standing(digits: str) -> int:
    """2 for a valid number, 1 for one of a possible length, 0 for none; `digits` begin with the country code."""
    import phonenumbers

    try:
        number = phonenumbers.parse(f"+{digits}", None)
    except phonenumbers.NumberParseException:
        return 0
    if phonenumbers.is_valid_number(number):
        return 2
    reason = phonenumbers.is_possible_number_with_reason(number)
    return 1 if reason == phonenumbers.ValidationResult.IS_POSSIBLE else 0


def _american(text: str, match: re.Match[str]) -> int:
    """Groups that only spaces part need an area code in use, or a word before them."""
    if re.fullmatch(r"[0-9 ]+", match[0]) is None or _standing("1" + match[0].replace(" ", "")[-10:]) == 2:
        return match.end()
    return _cued(text, match)


def _trunk(text: str, match: re.Match[str]) -> int:
    """Hyphens alone in nine digits mean a postal code or a part number, one dot a decimal, fours some other number."""
    digits, written = sum(map(str.isdigit, match[0])), match[0]
    if not 9 <= digits <= 12 or _DATE.search(written):
        return 0
    doubtful = (digits == 9 and re.fullmatch(r"[0-9-]+", written)) or _DOUBTFUL.fullmatch(written)
    return _cued(text, match) if doubtful else match.end()


def _area(text: str, match: re.Match[str]) -> int:
    year = re.match(r"(?:19|20)[0-9]{2}$", match["area"])
    return 0 if year or not 8 <= sum(map(str.isdigit, match[0])) <= 12 else match.end()


def _as_written(_: str, match: re.Match[str]) -> int:
    return match.end()


def _cued(text: str, match: re.Match[str]) -> int:
    """Seven digits or more right after a word for a phone."""
    low = max(0, match.start() - 44)
    cues = list(_CUE.finditer(text, low, match.start()))
    if not cues or match.start() - cues[-1].end() > 28 or _NOT_PHONE.search(text[cues[-1].end() : match.start()]):
        return 0
    return 0 if _DATE.search(match[0]) else match.end()


FORMS: tuple[tuple[str, re.Pattern[str], Callable[[str, re.Match[str]], int]], ...] = tuple(
    (sign, re.compile(_LEFT + pattern + _RIGHT), accept)
    for sign, pattern, accept in (
        ("+", r"\(?\+\(?[1-9](?:[ .\-/()]{0,3}[0-9]){6,14}", _international),
        ("00", r"00 ?[1-9](?:[ .\-/()]{0,3}[0-9]){7,13}", _international),
        (
            "",
            r"(?:1[ .\-/]{0,2})?(?:\([2-9][0-9]{2}\)[ .\-]{0,2}|[2-9][0-9]{2}[ .\-/])[2-9][0-9]{2}[ .\-][0-9]{4}",
            _american,
        ),
        ("0", r"(?<![0-9] )0[1-9](?P<s>[ .-])[0-9]{2}(?:(?P=s)[0-9]{2}){3}(?! ?[0-9]| [0-9a-fA-F]{2}\b)", _trunk),
        ("0", r"(?<![0-9] )\(?0[1-9][0-9]{0,3}\)?(?:[ .-]| ?/ ?| - |\)[.-])[0-9]{3,9}(?:[ .-][0-9]{2,8}){0,3}", _trunk),
        ("0", r"(?<![0-9] )\(?0[1-9][0-9]{1,3}\)?(?:[ .-]| ?/ ?| - |\)[.-])[0-9]{2}(?:[ .-][0-9]{2,3}){2,3}", _trunk),
        ("(", r"(?<![0-9] )(?:8[ -]?)?\((?P<area>[0-9]{2,5})\)[ .-]?[0-9]{2,7}(?:[ .-][0-9]{2,5}){0,3}", _area),
        ("1", r"1[3-9][0-9](?P<s>[ -])[0-9]{4}(?P=s)[0-9]{4}", _as_written),
        ("8", r"8[ -][0-9]{3}[ -][0-9]{3}[ -][0-9]{2}[ -][0-9]{2}", _as_written),
        ("", r"\(?[0-9](?:(?:[ .\-/]|\) ?| ?\(| [-/] )?[0-9]){6,14}(?! ?[0-9])", _cued),
    )
)
