"""robots.txt as RFC 9309 has it: the longest matching rule decides, with `*` and `$`.

`urllib.robotparser` takes the first rule that matches and knows no wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

MAX_BYTES = 500 << 10
"""What is read of a robots.txt; RFC 9309 asks for at least this much."""

_LINE = re.compile(r"[ \t]*([A-Za-z-]+)[ \t]*:[ \t]*([^#]*)")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True)
class Robots:
    """The rules that a site has for one crawler."""

    rules: tuple[tuple[str, bool], ...] = ()
    """Pattern, and whether it allows; the longest first, and of equal ones what allows."""
    delay: float = 0.0
    """Seconds between two requests that the site asks for (`Crawl-delay`, no part of the RFC)."""
    sitemaps: tuple[str, ...] = ()

    def allow(self, path: str) -> bool:
        """Whether a path with its query may be fetched."""
        written = _normal(path)
        return next((allowed for pattern, allowed in self.rules if _matches(pattern, written)), True)


NOTHING = Robots((("/", False),))
"""The rules of a site whose robots.txt cannot be had: nothing is allowed."""


def parse(body: bytes, agent: str) -> Robots:
    """The rules for a crawler of this name, or those for `*` where it has none of its own."""
    own = _Group()
    others = _Group()
    sitemaps: list[str] = []
    current: list[_Group] = []
    naming = False
    for key, value in _lines(body):
        if key == "sitemap":
            sitemaps.append(value)
        elif key == "user-agent":
            if not naming:
                current = []
            naming = True
            token = re.match(r"[A-Za-z_-]*", value)
            if token and token.group().lower() == agent.lower():
                own.named = True
                current.append(own)
            elif value.startswith("*"):
                current.append(others)
        else:
            naming = False
            for group in current:
                group.add(key, value)
    group = own if own.named else others
    ordered = sorted(set(group.rules), key=lambda rule: (-len(rule[0]), not rule[1], rule[0]))
    return Robots(tuple(ordered), group.delay, tuple(sitemaps))


class _Group:
    """Rules of all the groups that name one crawler."""

    def __init__(self) -> None:
        self.named, self.delay = False, 0.0
        self.rules: list[tuple[str, bool]] = []

    def add(self, key: str, value: str) -> None:
        if key in ("allow", "disallow") and value:
            self.rules.append((_normal(value), key == "allow"))
        elif key == "crawl-delay" and re.fullmatch(r"\d{1,9}(\.\d{0,9})?", value):
            self.delay = max(self.delay, float(value))


def _lines(body: bytes) -> Iterable[tuple[str, str]]:
    text = body[:MAX_BYTES].decode("utf-8-sig", "replace")
    for line in re.split(r"[\r\n]+", text):
        if found := _LINE.match(line):
            yield found[1].lower(), found[2].strip()


def _normal(path: str) -> str:
    """Percent escapes written in one way: none for what needs none, capitals elsewhere."""

    def same(match: re.Match[str]) -> str:
        letter = chr(int(match[1], 16))
        return letter if letter in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(same, quote(path, safe="/?#[]@!$&'()*+,;=:%~"))


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern fits the start of a path, or all of it where it ends in `$`. Each piece between two `*` is
    looked for once, from left to right: no pattern makes this slow.
    """
    whole = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if not rest:
        return not whole or path == first
    place = len(first)
    last = rest.pop() if whole else ""
    for piece in rest:
        found = path.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return path.endswith(last) and len(path) - len(last) >= place
