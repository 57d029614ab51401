"""Sources of type `web`: the main text of the pages that a crawl has fetched.

A snapshot holds `00000.html`, `00001.pdf`, ... and
    index.jsonl    one line for each address that was met, in the order of addresses: `url`, and either `file`,
                   `status`, `content_type` and `license` (where the page names one), or `reason` and `detail`:
                   why there is no file
    fetched.json   address → when it was fetched; the one file that may differ between two snapshots of the same
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flywheel.errors import SourceError
from flywheel.recipe_sources import WebSource
from flywheel.record import Dropped, Outcome, Outcomes, Quarantined, Record, provenance_id
from flywheel.sources import formats
from flywheel.sources.decoding import damaged
from flywheel.sources.listing import READ, Entry
from flywheel.sources.parsed import Bad, Found, Options, Parser
from flywheel.sources.tags import MAX_SIZE, decode, look

INDEX, FETCHED = "index.jsonl", "fetched.json"
DROPPED = frozenset(
    (
        "robots",
        "crawl_delay",
        "noindex",
        "noai",
        "excluded",
        "content_type",
        "redirect",
        "redirect_elsewhere",
        "duplicate",
    )
)
"""Reasons that follow from a rule, of the recipe or of the site; with any other a page is quarantined."""
MAX_ATTRIBUTES = 1_000
"""Attributes of one tag, which builders of trees compare with each other."""
MAX_DEPTH = 500
"""Open elements; deeper pages are attacks (the parsers that browsers use stop at 512)."""

_BLANK = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")
_TAG = re.compile(r"""<[a-zA-Z](?:[^"'>]++|"[^"]*+"|'[^']*+')*+""")
_ATTRIBUTE = re.compile(r"""[^\s"'<>/=]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'>]++))?""")
_FURNITURE = "script, style, noscript, template, nav, header, footer, aside, form, iframe, svg"


def reader(source: WebSource, name: str, root: Path | None) -> PagesReader:
    """The reader of the snapshot in `root`."""
    return PagesReader(source, name, root)


class PagesReader:
    """One row for each page. Dropped: DROPPED and `empty`. Quarantined: why a page could not be had (`http_404`,
    `too_large`, `timeout`, ...) or read (`too_deep`, `too_long`, ...). `group` is the page's address.
    """

    def __init__(self, source: WebSource, name: str, root: Path | None) -> None:
        if root is None:
            raise SourceError(
                f"source {name}", found="no snapshot", expected="pages that were fetched", remedy="fetch it first"
            )
        self.source, self.name, self.root = source, name, root
        lines = (root / INDEX).read_text(encoding="utf-8").splitlines()
        self._pages: dict[str, Mapping[str, Any]] = {page["url"]: page for page in map(json.loads, lines)}
        self._fetched: dict[str, str] = json.loads((root / FETCHED).read_text(encoding="utf-8"))

    def entries(self) -> list[Entry]:
        return [self._entry(page) for page in self._pages.values()]

    def _entry(self, page: Mapping[str, Any]) -> Entry:
        if "file" in page:
            return Entry(self.root / page["file"], page["url"], READ)
        if page["reason"] in DROPPED:
            return Entry(self.root, page["url"], page["reason"])
        return Entry(self.root, page["url"], READ, identity=f"{page['reason']} {page['detail']}")

    def read(self, entry: Entry) -> Outcomes:
        page = self._pages[entry.name]
        if "file" not in page:
            identity = provenance_id(self.name, entry.name, b"")
            yield Quarantined(identity, page["reason"], entry.name, self.name, page["detail"])
            return
        for found in _parser(entry.path)(entry.path, Options(encoding="auto")):
            yield self._row(page, found)

    def _row(self, page: Mapping[str, Any], found: Found | Bad) -> Outcome:
        url: str = page["url"]
        place = f"{url}:{found.position}" if found.position else url
        if isinstance(found, Bad):
            identity = provenance_id(self.name, place, found.detail.encode(errors="backslashreplace"))
            return Quarantined(identity, found.reason, place, self.name, found.detail)
        text = str(found.cells.get("text") or "")
        data = text.encode(errors="backslashreplace")
        identity = provenance_id(self.name, place, data)
        if not text.strip():
            return Dropped(identity, "empty", place, self.name)
        if damaged(text):
            return Quarantined(identity, "undecodable", place, self.name)
        own = {
            "source": self.name,
            "path": place,
            "license": page["license"] or self.source.license,
            "size": len(data),
            "group": url,
        }
        seen = {"url": url, "fetched": self._fetched.get(url, "")}
        return Record(identity, text=text, origin={**found.origin, **own, **seen})


def _parser(path: Path) -> Parser:
    """Pages have a parser of their own here; `formats` knows the other kinds of files."""
    return parse if path.suffix == ".html" else formats.parser(path.name) or parse


def parse(path: Path, options: Options) -> Iterator[Found | Bad]:
    """The main text of one HTML page; `origin` has its `title`, and `url` and `license` where the page names them.

    Bad: `too_long` (more than MAX_SIZE bytes), `too_deep`, `too_many_attributes`, `wrong_format`.
    """
    size = path.stat().st_size
    if size > MAX_SIZE:
        yield Bad("", "too_long", f"{size} bytes of HTML")
        return
    page = decode(path.read_bytes(), "" if options.encoding == "auto" else options.encoding)
    if "\0" in page[:1_024]:
        yield Bad("", "wrong_format", "a NUL byte near the start: this is no HTML")
        return
    seen = look(page)
    if seen.depth > MAX_DEPTH:
        yield Bad("", "too_deep", f"{seen.depth} elements inside each other")
        return
    long_tags = (tag[0] for tag in _TAG.finditer(page) if len(tag[0]) > 2 * MAX_ATTRIBUTES)
    if any(len(_ATTRIBUTE.findall(tag)) > MAX_ATTRIBUTES for tag in long_tags):
        yield Bad("", "too_many_attributes", f"over {MAX_ATTRIBUTES} in one tag")
        return
    origin = {"title": seen.title, "url": seen.canonical, "license": seen.license}
    yield Found("", {"text": main_text(page)}, {k: v for k, v in origin.items() if v})


def main_text(html: str) -> str:
    """The text of an article without the furniture of its page; the text of the whole body where none stands out."""
    import trafilatura

    found: str | None = trafilatura.extract(html, include_comments=False, include_tables=True)
    return found or _body_text(html)


def _body_text(html: str) -> str:
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    for node in tree.css(_FURNITURE):
        node.decompose()
    body = tree.css_first("main") or tree.css_first("article") or tree.body
    return _LINES.sub("\n", _BLANK.sub(" ", body.text(separator="\n"))).strip() if body else ""
