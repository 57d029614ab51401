"""Text from documents: plain text and Markdown, PDF, DOCX. One row for each, but for very long plain texts."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flywheel.sources.archives import BROKEN as BROKEN_ARCHIVE
from flywheel.sources.archives import office_fault
from flywheel.sources.decoding import BLOCK, damaged, open_text
from flywheel.sources.parsed import MAX_CELL, Bad, Found, Options

DOCUMENT, COLLECTION = 8_192, 65_536
"""A plain text of more than COLLECTION characters is cut at blank lines into documents of at least DOCUMENT."""
MAX_PAGES = 10_000
"""Pages of a PDF file."""
MAX_TITLE = 300

_BLANK_LINE = re.compile(r"\r?\n[ \t]*\r?\n")


# ---------------------------------------------------------------- plain text


def plain(path: Path, options: Options) -> Iterator[Found | Bad]:
    """A text as it is; one of more than COLLECTION characters in parts, which together are the whole of it.

    Position: "", or where the part begins, in characters. Bad: `undecodable`, which is one part of a long text.
    """
    with open_text(path, options) as file:
        text, ended, offset = "", False, 0
        while True:
            while not ended and len(text) <= COLLECTION:
                more = file.read(BLOCK)
                text, ended = text + more, not more
            if offset == 0 and len(text) <= COLLECTION:
                yield document("", text)
                return
            if not text:
                return
            end = _end_ofdocument(text)
            yield document(str(offset), text[:end])
            text, offset = text[end:], offset + end


def document(position: str, text: str, origin: Mapping[str, Any] | None = None) -> Found | Bad:
    """A row with nothing but a text."""
    if len(text) > MAX_CELL:
        return Bad(position, "too_long", f"a text of {len(text)} characters")
    return Bad(position, "undecodable") if damaged(text) else Found(position, {"text": text}, origin or {})


def _end_ofdocument(text: str) -> int:
    """Where the document ends that begins here: at the next blank line, else line, at least DOCUMENT further on."""
    if blank := _BLANK_LINE.search(text, DOCUMENT, COLLECTION):
        return blank.end()
    line = text.find("\n", DOCUMENT, COLLECTION)
    return line + 1 if line >= 0 else min(COLLECTION, len(text))


# ---------------------------------------------------------------- PDF


def pdf(path: Path, options: Options) -> Iterator[Found | Bad]:
    """The text of all pages, with a blank line between them. The origin has `title`, `pages` and `broken_pages`.

    A file that opens without a password is read. Bad: `encrypted`, `bad_pdf`, `too_long`, and `no_text` where all pages
    are pictures: characters are not recognised in them.
    """
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        with path.open("rb") as file:
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                yield Bad("", "encrypted")
                return
            if len(reader.pages) > MAX_PAGES:
                yield Bad("", "too_long", f"{len(reader.pages)} pages")
                return
            pages = [_page_text(page) for page in reader.pages]
            title = _pdf_title(reader)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # pypdf raises whatever a damaged file makes it stumble over
        unknown = isinstance(error, pypdf.errors.DependencyError | NotImplementedError)
        yield Bad("", "encrypted" if unknown else "bad_pdf", f"{type(error).__name__}: {error}"[:200])
        return
    broken = sum(page is None for page in pages)
    text = "\n\n".join(page.strip() for page in pages if page and page.strip())
    if text:
        about = {"title": _clean(title), "pages": len(pages), "broken_pages": broken}
        yield document("", _clean(text), {name: value for name, value in about.items() if value})
    else:
        reason = "bad_pdf" if broken or not pages else "no_text"
        yield Bad("", reason, f"{len(pages)} pages, {broken} of them broken")


def _pdf_title(reader: Any) -> str:
    about = reader.metadata
    return str(about.title or "").strip()[:MAX_TITLE] if about else ""


def _page_text(page: Any) -> str | None:
    """The text of a page, or None where it is broken."""
    try:
        return str(page.extract_text())
    except MemoryError:
        raise
    except Exception:  # as above
        return None


def _clean(text: str) -> str:
    """Without halves of surrogate pairs, which fonts with wrong tables give: they are no characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---------------------------------------------------------------- DOCX

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_BREAKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}


def docx(path: Path, options: Options) -> Iterator[Found | Bad]:
    """Paragraphs and the rows of tables, one a line and cells with tabs between, in order. The origin has the title.

    Text that a tracked change takes out, headers, footers and notes are left out. Entities are not resolved.
    Bad: `encrypted`, `bomb`, `bad_docx`, `too_long`.
    """
    from lxml import etree

    if fault := office_fault(path, "bad_docx"):
        yield fault
        return
    body, about = _Body(), _Title()
    try:
        with zipfile.ZipFile(path) as archive:
            _feed(archive, "word/document.xml", body)
            if "docProps/core.xml" in archive.namelist():
                _feed(archive, "docProps/core.xml", about)
    except (etree.XMLSyntaxError, *BROKEN_ARCHIVE, OSError, KeyError) as error:
        yield Bad("", "bad_docx", str(error)[:200])
    except _TooLong:
        yield Bad("", "too_long", f"over {MAX_CELL} characters")
    else:
        title = about.text.strip()
        yield document("", body.text(), {"title": title[:MAX_TITLE]} if title else {})


def _feed(archive: zipfile.ZipFile, name: str, target: Any) -> None:
    """Let a target see the XML of a member. No tree is built and nothing outside of the member is read."""
    from lxml import etree

    parser = etree.XMLParser(target=target, resolve_entities=False, no_network=True, load_dtd=False)
    with archive.open(name) as member:
        while block := member.read(BLOCK):
            parser.feed(block)
    parser.close()


class _TooLong(Exception):
    pass


class _Body:
    """What lxml's parser calls for each element of a document."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._paragraph: list[str] = []
        self._cells: list[list[list[str]]] = []
        """For each table row that is open, the paragraphs of its cells."""
        self._length = self._skipped = 0
        self._in_text = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._skipped += tag == _FALLBACK
        self._in_text = tag == f"{_W}t" and not self._skipped
        if tag == f"{_W}tr":
            self._cells.append([])
        elif tag == f"{_W}tc" and self._cells:
            self._cells[-1].append([])
        elif tag in _BREAKS and not self._skipped:
            self._paragraph.append(_BREAKS[tag])

    def end(self, tag: str) -> None:
        self._skipped -= tag == _FALLBACK
        self._in_text = False
        if tag == f"{_W}p":
            self._put("".join(self._paragraph))
            self._paragraph.clear()
        elif tag == f"{_W}tr" and self._cells:
            self._put("\t".join(" ".join(filter(None, cell)) for cell in self._cells.pop()))

    def data(self, text: str) -> None:
        if self._in_text:
            self._length += len(text)
            if self._length > MAX_CELL:
                raise _TooLong
            self._paragraph.append(text)

    def close(self) -> None:
        """Nothing is left to do."""

    def text(self) -> str:
        return "\n".join(self._lines).strip("\n")

    def _put(self, line: str) -> None:
        if self._cells and self._cells[-1]:
            self._cells[-1][-1].append(line.replace("\n", " "))
        else:
            self._lines.append(line)


class _Title:
    """The `dc:title` of a document's properties."""

    def __init__(self) -> None:
        self.text, self._open = "", False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._open = tag == "{http://purl.org/dc/elements/1.1/}title"

    def end(self, tag: str) -> None:
        self._open = False

    def data(self, text: str) -> None:
        if self._open and len(self.text) < MAX_TITLE:
            self.text += text

    def close(self) -> None:
        """Nothing is left to do."""
