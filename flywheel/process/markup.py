"""Removal of markup from rows of text. Whole HTML documents are better read as a source: that keeps their main text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from flywheel.process.text import change_texts
from flywheel.record import Outcomes, Record

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_BLOCKS = (
    "address|article|aside|blockquote|body|button|caption|center|details|dialog|dir|div|dl|fieldset|figcaption|"
    "figure|footer|form|frameset|h1|h2|h3|h4|h5|h6|head|header|hgroup|html|legend|main|menu|nav|ol|p|pre|search|"
    "section|select|summary|table|title|ul"
)
_LINES = "br|dd|dt|hr|li|option|tbody|tfoot|thead|tr"
_CELLS = "td|th"
_INLINE = (
    "a|abbr|acronym|applet|area|audio|b|base|basefont|bdi|bdo|big|canvas|cite|code|col|colgroup|data|datalist|del|"
    "dfn|em|embed|font|frame|i|img|input|ins|kbd|label|link|map|mark|marquee|meta|meter|nobr|object|output|param|"
    "picture|progress|q|rp|rt|ruby|s|samp|slot|small|source|span|strike|strong|sub|sup|textarea|time|track|tt|u|var|"
    "video|wbr|xmp"
)
# Elements that show nothing themselves; as in HTML, one that is not closed reaches to the end.
_HIDDEN = "script|style|template|noscript|iframe|svg|math|noframes"

# Possessive, so that no input makes it slow; names only of HTML, so that `vector<int>` and `a<b` stay.
_ATTRIBUTES = r"""(?:[\s/](?:[^<>"']|"[^"<]*"|'[^'<]*')*+)?>"""
_TAG = re.compile(
    rf"(?P<hidden><!--.*?(?:-->|\Z)|<(?P<name>{_HIDDEN})\b[^<>]*+>.*?(?:</(?P=name)\s*>|\Z)|<!DOCTYPE[^<>]*>)"
    rf"|(?P<block></?(?:{_BLOCKS}){_ATTRIBUTES})"
    rf"|(?P<line></?(?:{_LINES}){_ATTRIBUTES})"
    rf"|(?P<cell></?(?:{_CELLS}){_ATTRIBUTES})"
    rf"|</?(?:{_INLINE}){_ATTRIBUTES}",
    re.IGNORECASE | re.DOTALL,
)
_REFERENCE = re.compile("&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_BLANK_LINES = re.compile(r"\n{3,}")

_MARKDOWN = re.compile(r"[*_`\[\]\\#>~|]|^[ \t]*[-+=]", re.MULTILINE)


def remove_html(rows: Iterable[Record]) -> Outcomes:
    """Remove HTML tags, comments, scripts and styles, and decode character references such as `&amp;`.

    Block elements become lines and table cells are set apart by tabs. Only names of HTML elements count as tags, so
    that `a < b` and `List<String>` stay. Text without either is not touched.
    """
    return change_texts(rows, without_html)


def remove_markdown(rows: Iterable[Record]) -> Outcomes:
    """Remove the marks of CommonMark, of tables and of strikethrough, and keep what they mark.

    Links and pictures leave their text, code its lines, numbered lists their numbers; HTML stays. Text without a
    character that could be a mark is not touched; elsewhere several blank lines become one.
    """
    return change_texts(rows, without_markdown)


def without_html(text: str) -> str:
    """A text without HTML; linear in its length."""
    if "<" in text:
        plain = _TAG.sub(_gap, text)
        if plain != text:
            lines = [line.strip(" ") if "\t" not in line else line.strip(" \t") for line in plain.split("\n")]
            text = _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")
    return _REFERENCE.sub(_decoded, text) if "&" in text else text


def _gap(match: re.Match[str]) -> str:
    if match["block"]:
        return "\n"
    if match[0][1] == "/":
        return ""
    return "\n" if match["line"] else "\t" if match["cell"] else ""


def _decoded(match: re.Match[str]) -> str:
    return html.unescape(match[0]).replace("\xa0", " ")


def without_markdown(text: str) -> str:
    """A text without the marks of Markdown."""
    if not _MARKDOWN.search(text):
        return text
    parts: list[str] = []
    end, number = 0, ""
    for token in _parser().parse(text):
        if token.type == "list_item_open":
            number = f"{token.info}{token.markup} " if token.info else ""
        elif token.type == "tbody_open":
            end += 1  # the line under the head of a table
        elif token.type in {"inline", "fence", "code_block", "html_block"}:
            first, last = token.map or (end, end)
            if parts:
                parts.append("\t" if first < end else "\n\n" if first > end else "\n")
            parts += number, _plain(token)
            end, number = last, ""
    return "".join(parts) + "\n" * text.endswith("\n")


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _plain(token: Token) -> str:
    if token.type != "inline":
        return token.content.rstrip("\n")
    return "".join(
        "\n" if child.type in {"softbreak", "hardbreak"} else child.content for child in token.children or ()
    )
