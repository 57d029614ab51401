"""What a crawler has to know of a page: links, title, licence, and what its author asks of robots.

It is read from the tags alone, in one pass and in time proportional to the size: the parsers that build a tree take
quadratic time on some pages (500,000 nested elements, 100,000 attributes), and this one runs outside of the sandbox.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape

MAX_SIZE = 4 << 20
"""Characters of a page that is looked at; trafilatura manages about a million a second."""
MAX_LINKS = 10_000
MAX_TAG, MAX_BROKEN = 16_384, 1_000
"""Characters of one tag, and tags without an end; what lies beyond is not looked at."""

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]{0,30})")
_REST = re.compile(r"""(?:[^"'>]++|"[^"]*+"|'[^']*+')*+>""")
_ATTRIBUTE = re.compile(r"""([^\s"'<>/=]++)(?:\s*+=\s*+("[^"]*+"|'[^']*+'|[^\s"'>]++))?""")
_RAW = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "textarea", "title", "noscript")}
"""Elements in which no tags stand, but text until their own end."""
_NO_DEPTH = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
    "a", "p", "li", "dt", "dd", "td", "th", "tr", "thead", "tbody", "tfoot", "colgroup", "option", "optgroup",
))  # fmt: skip
"""Elements that hold nothing, or that need no end."""
_LICENSE_NAMES = frozenset(("license", "licence", "dc.rights", "dc.license", "dcterms.license", "dcterms.rights"))
_COMMONS = re.compile(
    r"(?:https?:)?//(?:www\.)?creativecommons\.org/(?:licenses/([a-z-]+)|publicdomain/(zero|mark))/(\d\.\d)",
    re.IGNORECASE,
)
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9._:-]{1,40})""", re.IGNORECASE)
_CODEC = re.compile(
    r"utf-(?:8|16|32)(?:-[lb]e)?|iso8859-\d+|iso2022_\w+|cp\d+|koi8-[rut]|shift_jis\w*|euc_\w+|gb\w+|big5\w*|mac-\w+|tis-620"
)
"""Codecs of text; Python has others (`punycode`, `unicode_escape`), some of them slow, that no page may ask for."""
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass
class Look:
    """What was found, with addresses as they are written."""

    title: str = ""
    license: str = ""
    """SPDX identifier where it is one of Creative Commons, else what the page says, at most 200 characters."""
    canonical: str = ""
    base: str = ""
    links: list[str] = field(default_factory=list)
    asks: set[str] = field(default_factory=set)
    """What robots are asked: `noindex`, `nofollow`, `noai`, ..."""
    depth: int = 0
    """Of elements inside each other, at most."""


def look(page: str, agent: str = "flywheel") -> Look:
    """Read the tags of the first MAX_SIZE characters of a page. Never raises."""
    found = Look()
    for name, attributes, text, depth in _tags(page[:MAX_SIZE]):
        found.depth = max(found.depth, depth)
        if name == "title" and not found.title:
            found.title = " ".join(unescape(text).split())[:300]
        elif name in ("a", "area", "link"):
            _link(found, name, attributes)
        elif name == "base" and not found.base:
            found.base = attributes.get("href", "").strip()
        elif name == "meta":
            _meta(found, attributes, agent)
    return found


def decode(raw: bytes, named: str = "") -> str:
    """A page as text: by its byte order mark; as UTF-8 where it is that; by the encoding that its server (`named`) or
    it itself names; else as windows-1252, to which browsers fall back. Never raises.
    """
    for mark, codec in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(codec, "replace")
    own = _CHARSET.search(raw, 0, 4_096)
    known = [codec for name in (named, own[1].decode("ascii") if own else "") if (codec := _codec(name))]
    # ISO 2022 writes everything with 7 bits and escapes, so that it is UTF-8 as well.
    for codec in (*known, "utf-8") if b"\x1b" in raw else ("utf-8", *known):
        try:
            return raw.decode(codec)
        except ValueError:
            continue
    return raw.decode("windows-1252", "replace")


def _codec(name: str) -> str:
    """Python's name of an encoding; empty where it is unknown or none of text."""
    try:
        found = codecs.lookup(name.strip().strip("\"'")).name
    except (LookupError, ValueError):
        return ""
    return found if _CODEC.fullmatch(found) else ""


def asked(values: str, agent: str) -> set[str]:
    """What a robots meta tag or an X-Robots-Tag header asks: `noindex, nofollow` or, to one robot, `name: noindex`."""
    asks: set[str] = set()
    mine = True
    for part in values.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
            mine = name.strip() == agent
            part = rest
        if mine:
            asks.add(part.strip())
    return asks | {"noindex", "nofollow"} if "none" in asks else asks


def spdx(text: str) -> str:
    """The SPDX identifier of an address of Creative Commons; any other text as it is, at most 200 characters."""
    if found := _COMMONS.match(text.strip()):
        if found[2]:
            return f"CC0-{found[3]}" if found[2].lower() == "zero" else f"CC-PDM-{found[3]}"
        return f"CC-{found[1].upper().strip('-')}-{found[3]}"
    return " ".join(text.split())[:200]


def _link(found: Look, name: str, attributes: Mapping[str, str]) -> None:
    address, relations = attributes.get("href", "").strip(), attributes.get("rel", "").lower().split()
    if not address:
        return
    if "license" in relations and not found.license:
        found.license = spdx(address)
    elif name == "link":
        if "canonical" in relations and not found.canonical:
            found.canonical = address
    elif len(found.links) < MAX_LINKS:
        found.links.append(address)


def _meta(found: Look, attributes: Mapping[str, str], agent: str) -> None:
    name, content = attributes.get("name", "").strip().lower(), attributes.get("content", "")
    if name in ("robots", agent):
        found.asks |= asked(content, agent)
    elif name in _LICENSE_NAMES and content.strip() and not found.license:
        found.license = spdx(content)


def _tags(page: str) -> Iterator[tuple[str, dict[str, str], str, int]]:
    """Name, attributes and depth of each opening tag, and the text of those of _RAW."""
    place = depth = broken = 0
    while broken < MAX_BROKEN and (place := page.find("<", place)) >= 0:
        if page.startswith("<!--", place):
            if (place := page.find("-->", place + 4)) < 0:
                return
            continue
        start = _TAG.match(page, place)
        end = _REST.match(page, start.end(), start.end() + MAX_TAG) if start else None
        if start is None or end is None:
            broken += start is not None
            place += 1
            continue
        place, name = end.end(), start[2].lower()
        if start[1]:
            depth -= depth > 0 and name not in _NO_DEPTH
            continue
        depth += name not in _NO_DEPTH and not end[0].endswith("/>")
        text = ""
        if name in _RAW:
            stop = _RAW[name].search(page, place)
            text, place = (page[place : stop.start()], stop.start()) if stop else ("", len(page))
        yield name, _attributes(end[0]) if name in ("a", "area", "link", "base", "meta") else {}, text[:1_000], depth


def _attributes(tag: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(tag):
        found.setdefault(name.lower(), unescape(value.strip("\"'")))
    return found
