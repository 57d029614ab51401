"""What a word before it announces: passport numbers, dates of birth, and places on the earth."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flywheel.process.pii_views import View
from flywheel.process.spans import Match

_PASSPORT_WORD = re.compile(r"(?i:pass(?:port|eport|nummer|aporto)|reisepass|pasaporte)[^0-9\n]{0,24}$")
_PASSPORT = re.compile(
    r"(?<![0-9A-Za-z])(?:[A-Z]{0,2}[0-9]{6,9}|[0-9]{2}[A-Z]{2}[0-9]{5}|[CFGHJK][0-9CFGHJKLMNPRTVWXYZ]{8})(?![0-9A-Za-z])"
)


def passports(view: View) -> Iterator[Match]:
    """Six to nine digits with up to two letters, or a German number, shortly after a word for a passport."""
    for match in _PASSPORT.finditer(view.text, view.low, view.high + 1):
        if _PASSPORT_WORD.search(view.text, max(0, match.start() - 40), match.start()):
            yield Match("passport", match.start(), match.end())


_MONTH = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mai|jui|okt|dez|f[ée]v|avr|ao[uû]|d[ée]c|ene|abr|ago|dic|gen|giu"
    r"|lug|set|ott|fev|out|m[äa]r|maj)[^\W\d_]{0,8}"
)
_YEAR, _DAY = r"(?:18|19|20)[0-9]{2}", r"[0-3]?[0-9](?:st|nd|rd|th|er|\.|º)?"
_DATE = re.compile(
    rf"(?i)(?<![0-9])(?:{_YEAR}([-/. ])[01]?[0-9]\1[0-3]?[0-9]|[0-3]?[0-9]([-/. ])[0-3]?[0-9]\2(?:{_YEAR}|[0-9]{{2}})"
    rf"|{_YEAR}[01][0-9][0-3][0-9]|{_MONTH}\.? {_DAY},? {_YEAR}"
    rf"|{_DAY}[ -](?:of |de )?{_MONTH}[.,]?[ -](?:de |of )?{_YEAR})(?![0-9])"
)
_BIRTH = re.compile(
    r"(?i)(?<![a-z])(?:born|birth|birthda(?:y|te)|birth_?date|dob|d\.o\.b|geb|geboren|geburts[a-z]*|naissance"
    r"|n[ée]{1,2}\(?e?\)? le|nacimiento|nascimento|nascita|nacid[oa]|nascid[oa]|nat[oa] il)(?![a-z])"
)
_BIRTH_PARTS = ("birth", "born", "dob", "d.o.b", "geb", "naiss", "n\u00e9", "nee", "naci", "nasci", " il")


def births(view: View) -> Iterator[Match]:
    """Dates within 32 characters after a word for birth, no sentence end between; a year alone is left."""
    lower = view.text.lower()
    if not any(part in lower for part in _BIRTH_PARTS):
        return
    words = list(_BIRTH.finditer(view.text, 0, view.high))
    if not words:
        return
    word = words[-1]
    date = _DATE.search(view.text, word.end())
    if date is None or date.start() - word.end() > 32 or date.start() > view.high:
        return
    if not re.search(r"[0-9]|[.;!?] [A-Z]|\n.*\n", view.text[word.end() : date.start()]):
        yield Match("date_of_birth", date.start(), date.end())


_PAIR = re.compile(
    r"(?<![0-9A-Za-z.])-?([0-9]{1,2}\.[0-9]{4,15})(?: ?°)?(?: ?([NS])\b)?(?:[,;] ?| |%2C|, {2})"
    r"-?([0-9]{1,3}\.[0-9]{4,15})(?: ?°)?(?: ?([EWO])\b)?(?!\.?[0-9])"
)
_SINGLE = re.compile(r"(?<![0-9A-Za-z.])-?[0-9]{1,3}\.[0-9]{4,15}(?!\.?[0-9])")
_PLACE = re.compile(
    r"(?i)\bgps|coord|koord|\blat\b|latitude|\bl(?:on|ng)\b|longitude|location|\bgeo:|maps?\b|position|waypoint"
)
_AXIS = re.compile(r"(?i)(?:\blat|\bl(?:on|ng)|latitude|longitude)[\"']?\s?[:=]\s?[\"']?$")


def coordinates(view: View) -> Iterator[Match]:
    """Latitude and longitude in degrees with four decimals or more: with N/S and E/W, or after a word for a place."""
    for match in _PAIR.finditer(view.text, view.low):
        start = match.start()
        named = (match[2] and match[4]) or _PLACE.search(view.text, max(0, start - 48), start)
        if named and float(match[1]) <= 90 and float(match[3]) <= 180:
            yield Match("coordinates", start, match.end())
    for match in _SINGLE.finditer(view.text, view.low, view.high + 1):
        if _AXIS.search(view.text, max(0, match.start() - 16), match.start()):
            yield Match("coordinates", match.start(), match.end())


_MINUTES = r"° ?[0-9]{1,2}['\u2032\u2019] ?(?:[0-9]{1,2}(?:[.,][0-9]{1,6})?(?:[\"\u2033\u201d]|''|\u2032\u2032) ?)?"
_DEGREES = re.compile(rf"(?<![0-9])[0-9]{{1,2}}{_MINUTES}[NS][,;/ ]{{0,3}}[0-9]{{1,3}}{_MINUTES}[EWO](?![A-Za-z])")


def degrees(text: str) -> Iterator[Match]:
    """Latitude and longitude in degrees, minutes and perhaps seconds."""
    if "°" in text:
        for match in _DEGREES.finditer(text):
            yield Match("coordinates", match.start(), match.end())
