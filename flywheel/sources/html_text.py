"""Text from pages of HTML, for which lxml's parser builds no tree: tree builders take quadratic time on deep ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from flywheel.sources.decoding import encoding_of
from flywheel.sources.documents import MAX_TITLE, document
from flywheel.sources.parsed import MAX_CELL, Bad, Found, Options

MAX_DEPTH = 2_000
"""Elements inside each other; browsers stop at 512."""

_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)\b[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*"""
    rb"""((?:utf-?8|us-ascii|iso-8859|windows|koi8|euc|gb|big5|shift_jis)[a-z0-9_-]{0,10})""",
    re.IGNORECASE,
)
_PARAGRAPHS = frozenset((
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "ul", "ol", "dl", "table", "figure", "section",
    "article", "header", "main", "hr", "address", "details",
))  # fmt: skip
_LINES = frozenset((
    "div", "li", "tr", "dt", "dd", "option", "caption", "figcaption", "summary", "legend", "form", "fieldset",
    "body",
))  # fmt: skip
_UNSEEN = frozenset((
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "nav", "aside", "footer",
    "select", "button", "textarea", "head",
))  # fmt: skip
"""What is no content of its page; `title` in `head` is."""
_SPACE = re.compile(r"[ \t\r\n\f]+")


def html(path: Path, options: Options) -> Iterator[Found | Bad]:
    """The text of a page: that of `main`, or of its only `article`, where there is one. The origin has its title.

    Scripts, styles, navigation, footers and forms are left out. Encoding: a byte order mark wins, then what the page
    declares, then the recipe. Bad: `undecodable`, `too_long`, `too_deep`.
    """
    from lxml import etree

    if path.stat().st_size > MAX_CELL:
        yield Bad("", "too_long", f"over {MAX_CELL >> 20} MB")
        return
    text = _html_source(path, options)
    if text is None:
        yield Bad("", "undecodable")
        return
    page = _Page()
    # libxml2's limits for careful parsing make it hang on a comment of more than 10 MB; MAX_CELL is the limit here.
    parser = etree.HTMLParser(target=page, encoding="utf-8", huge_tree=True)
    try:
        parser.feed(text.encode())
        parser.close()
    except _TooDeep:
        yield Bad("", "too_deep", f"over {MAX_DEPTH} elements inside each other")
    else:
        title = " ".join(page.title.split())[:MAX_TITLE]
        yield document("", page.text(), {"title": title} if title else {})


def _html_source(path: Path, options: Options) -> str | None:
    """The source of a page, or None where it cannot be decoded."""
    raw = path.read_bytes()
    encoding = encoding_of(path, options)
    declared = _CHARSET.search(raw, 0, 4_096)
    marked = encoding in ("utf-8-sig", "utf-16", "utf-32")
    for name in (declared[1].decode(), encoding) if declared and not marked else (encoding,):
        try:
            return raw.decode(name)
        except (LookupError, ValueError):
            continue
    return None


class _TooDeep(Exception):
    pass


class _Page:
    """What lxml's parser calls for each tag and text of a page; puts lines and paragraphs together."""

    def __init__(self) -> None:
        self.title = ""
        self._blocks: list[tuple[int, str, bool, bool]] = []
        """Newlines before it, text, whether it stands in `main`, and in an `article`."""
        self._line: list[str] = []
        self._gap = self._depth = self._unseen = self._articles = 0
        self._open = dict.fromkeys(("head", "title", "main", "article", "pre"), 0)

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeep
        self._break(tag)
        self._articles += tag == "article" and not self._open["article"]
        self._unseen += tag in _UNSEEN
        if tag in self._open:
            self._open[tag] += 1
        if tag == "br":
            self._line.append("\n")

    def end(self, tag: str) -> None:
        self._break(tag)
        self._depth -= 1
        self._unseen -= tag in _UNSEEN
        if tag in self._open:
            self._open[tag] -= 1
        if tag in ("td", "th"):
            self._line.append("\t")

    def data(self, text: str) -> None:
        if self._open["title"] and self._open["head"]:
            self.title += text if len(self.title) < MAX_TITLE else ""
        elif not self._unseen:
            self._line.append(text if self._open["pre"] else _SPACE.sub(" ", text))

    def comment(self, text: str) -> None:
        """Comments are no text."""

    def close(self) -> None:
        self._break("body")

    def text(self) -> str:
        """That of `main`, or of the only article, or all of it."""
        chosen = [block for block in self._blocks if block[2]]
        if not chosen and self._articles == 1:
            chosen = [block for block in self._blocks if block[3]]
        return "".join("\n" * gap + text for gap, text, *_ in chosen or self._blocks).strip("\n")

    def _break(self, tag: str) -> None:
        """End the line where a tag does that."""
        gap = 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0
        if not gap:
            return
        line = "".join(self._line)
        self._line.clear()
        if not self._open["pre"]:
            line = re.sub(r" *([\t\n]) *", r"\1", re.sub(r"  +", " ", line)).strip()
        if line.strip():
            self._blocks.append((self._gap, line.strip("\n"), self._open["main"] > 0, self._open["article"] > 0))
            self._gap = 0
        self._gap = max(self._gap, gap)
