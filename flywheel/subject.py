"""A subject that data is searched for: a name, an address, any text, in all the ways in which it may be spelled.

Two spellings are one where `tombstones.folded` makes them equal: capitals, the composed and decomposed forms of
Unicode, line breaks and other white space, soft hyphens and zero-width characters make no difference. In JSON also
escapes are seen through. Not found: other transcriptions, typing errors, and what stands in pictures and recordings.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.errors import SourceError
from flywheel.record import Record, texts
from flywheel.sources.tombstones import IGNORED, folded

if TYPE_CHECKING:
    import pyarrow as pa

MACHINE = {"source", "license", "size", "augmented", "parent", "split", "reasons", "pii"}
"""Keys of an origin whose values are ours, and not what the data says."""
EXCERPT = 90
"""Characters that are shown before and after."""

_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\[nrtfv\"\\/]")
_SHORT = {r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\f": "\f", r"\v": "\v"}
_CHUNK, _OVERLAP = 1 << 20, 1 << 14
_SPACES = r" \t\r\n\v\f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_UNSEEN = "".join(rf"\x{{{point:x}}}" for point in IGNORED)
_UNSEEN_ESCAPED = r"\\u(?:" + "|".join(f"{point:04x}" for point in IGNORED) + ")"
_WITHIN = rf"(?:[{_UNSEEN}]|{_UNSEEN_ESCAPED})*"
_BETWEEN = rf"(?:[{_SPACES}{_UNSEEN}]|\\[nrtfv]|\\u00a0|\\u20[0-5][0-9a-f]|\\u3000|{_UNSEEN_ESCAPED})+"
"""What may stand within a word, and between two, also as JSON escapes it: regular expressions of RE2."""


class Subject:
    """A text to look for."""

    def __init__(self, written: str) -> None:
        self.written, self._folded = written, folded(written)
        if len(self._folded) < 2 or any("\ud800" <= c <= "\udfff" for c in written):
            raise SourceError(
                "the text to look for",
                found=repr(written),
                expected="at least two characters that can be seen",
                remedy="write a name, an address, or the words of a row",
            )
        words = [_parts(word) for word in self._folded.split()]
        self._usual = "(?i)" + _BETWEEN.join("".join(parts) for parts in words)
        self._pattern = "(?i)" + _BETWEEN.join(_WITHIN.join(parts) for parts in words)

    def in_text(self, text: str) -> bool:
        """Whether a text says the subject, as words of its own: `4 Main Street` is not in `14 Main Street`."""
        return self._stands_in(folded(text)) or ("\\" in text and self._stands_in(folded(_unescaped(text))))

    def _stands_in(self, text: str) -> bool:
        wanted, at = self._folded, text.find(self._folded)
        while at >= 0:
            end = at + len(wanted)
            inside = at > 0 and wanted[0].isalnum() and text[at - 1].isalnum()
            if not inside and not (end < len(text) and wanted[-1].isalnum() and text[end].isalnum()):
                return True
            at = text.find(wanted, at + 1)
        return False

    def in_row(self, row: Record) -> bool:
        """Whether a row says it: in its texts, in its label, or where it came from."""
        return any(map(self.in_text, said(row)))

    def excerpt(self, row: Record) -> str:
        """What a row says around the subject, on one line; the start where it does not."""
        parts = list(said(row))
        plain = " ".join(next(filter(self.in_text, parts), "".join(parts[:1])).translate(IGNORED).split())
        at = max(0, folded(plain).find(self._folded))
        return excerpt(plain, at, at + len(self._folded))

    def mask(self, values: pa.Array, *, escaped: bool = True) -> pa.Array:
        """Which of some texts say it, and perhaps a few more. `escaped`: they are JSON, or may hold some.

        The regular expression that looks within words is slow, and few texts need it.
        """
        import pyarrow.compute as pc

        found = pc.fill_null(pc.match_substring_regex(values, self._usual), False)
        unseen = None
        if escaped:
            unseen = pc.fill_null(pc.match_substring_regex(values, _UNSEEN_ESCAPED), False)
        if not pc.all(ascii_only := pc.string_is_ascii(values)).as_py():
            foreign = pc.match_substring_regex(pc.if_else(ascii_only, None, values), f"[{_UNSEEN}]")
            foreign = pc.fill_null(foreign, False)
            unseen = foreign if unseen is None else pc.or_(unseen, foreign)
        if unseen is not None and pc.any(unseen).as_py():
            more = pc.match_substring_regex(pc.if_else(unseen, values, None), self._pattern)
            found = pc.or_(found, pc.fill_null(more, False))
        return found

    def in_file(self, path: Path) -> bool:
        """Whether the bytes of a file say it; those of packed formats and of UTF-16 are not seen through."""
        with path.open("rb") as file:
            tail = b""
            while block := file.read(_CHUNK):
                if self.mask(_unchecked(tail + block))[0].as_py():
                    return True
                tail = block[-_OVERLAP:]
        return False


def _unchecked(data: bytes) -> pa.Array:
    """Bytes as one text, whatever they are: RE2 passes over what is no UTF-8."""
    import pyarrow as pa

    offsets = pa.array([0, len(data)], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(data)])


def said(row: Record) -> Iterator[str]:
    """Everything that a row says: texts, label, and the values of its origin."""
    yield from texts(row)
    if row.label is not None:
        yield row.label
    for name, value in row.origin.items():
        if name not in MACHINE:
            yield from _strings(value)


def excerpt(text: str, start: int = 0, end: int = 0) -> str:
    """A text around a part of it, on one line."""
    low, high = max(0, start - EXCERPT), end + EXCERPT
    return ("…" if low else "") + " ".join(text[low:high].split()) + ("…" if high < len(text) else "")


def spoken(row: Record, subject: Subject) -> Iterator[str]:
    """The texts of a row, its label among them, that say a subject."""
    yield from filter(subject.in_text, [*texts(row), *([] if row.label is None else [row.label])])


def _unescaped(text: str) -> str:
    """A text that holds JSON or source code, with its escapes resolved."""
    return _ESCAPES.sub(lambda found: _SHORT.get(found[0]) or json.loads(f'"{found[0]}"'), text)


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))


def _parts(word: str) -> list[str]:
    """The characters of a folded word as regular expressions."""
    parts, at = [], 0
    while at < len(word):
        size = next((n for n in (3, 2) if word[at : at + n] in _unfolded()), 1)
        parts.append(_part(word[at : at + size]))
        at += size
    return parts


def _part(part: str) -> str:
    """A character, or some that another one folds to, in every form: composed, decomposed, and escaped as in JSON."""
    if part in ('"', "\\", "/"):
        return rf"(?:{re.escape(part)}|\\{re.escape(part)})"
    if len(part) == 1 and part.isascii():
        return re.escape(part)
    spellings = {part, part.upper(), *_unfolded().get(part, ())}
    spellings |= {unicodedata.normalize("NFD", spelling) for spelling in spellings}
    written = {re.escape(spelling) for spelling in spellings} | set(map(_escaped, spellings))
    return f"(?:{'|'.join(sorted(written))})"


def _escaped(text: str) -> str:
    """As JSON in ASCII."""
    return re.escape(json.dumps(text)[1:-1])


@cache
def _unfolded() -> dict[str, list[str]]:
    """What folds to a text: the sharp s of German to `ss`, a ligature to `fi`, the final sigma to the other one."""
    found: dict[str, list[str]] = {}
    for character in map(chr, range(0x80, 0xFB18)):
        if (whole := character.casefold()) != character:
            found.setdefault(unicodedata.normalize("NFC", whole), []).append(character)
    return found
