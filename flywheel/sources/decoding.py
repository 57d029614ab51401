"""Bytes to text, line by line, with bounded memory: byte order marks, encodings, and what cannot be decoded.

A stretch of bytes that cannot be decoded becomes one unpaired surrogate, so that only the rows that hold it are lost
(`damaged`), and the same check finds the unpaired surrogates that JSON can spell.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr, TextIO

from flywheel.sources.parsed import MAX_CELL, Options

BLOCK = 1 << 18
"""Bytes or characters that are read at a time."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNDECODABLE = "flywheel.undecodable"


class UnknownEncoding(Exception):
    """The recipe names an encoding that is none."""


def _mark(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    raise error


codecs.register_error(_UNDECODABLE, _mark)


def encoding_of(path: Path, options: Options) -> str:
    """The codec that reads a file: its byte order mark, else as the recipe says, else (`auto`) a guess.

    Raises UnknownEncoding where the recipe names none that Python knows as a text encoding.
    """
    with path.open("rb") as file:
        start = file.read(4)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if options.encoding == "auto":
        return _guess(path)
    try:
        "".encode(options.encoding)
        name = codecs.lookup(options.encoding).name
    except (LookupError, ValueError) as error:
        raise UnknownEncoding(str(error)) from error
    return f"{name}-le" if name in ("utf-16", "utf-32") else name


def _guess(path: Path) -> str:
    """UTF-8 where the first bytes beyond ASCII are, else what charset-normalizer makes of them.

    It often cannot tell the encodings of Latin letters apart; then it is the most common one, windows-1252.
    """
    with path.open("rb") as file:
        sample = next((block for block in iter(lambda: file.read(BLOCK), b"") if not block.isascii()), b"")
        sample += file.read(8)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return "utf-8"
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        first = next(place for place, byte in enumerate(sample) if byte > 127)
        found = from_bytes(sample[max(0, first - 8_192) : first + 8_192])
        best = found.best()
        if best is None:
            return "utf-8"
        equal = [m for m in found if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
        common = any("cp1252" in (m.encoding, *m.could_be_from_charset) for m in equal)
        return "cp1252" if common else best.encoding


def open_text(path: Path, options: Options) -> TextIO:
    """A text file as it is, newlines included; check what is read with `damaged`."""
    encoding = encoding_of(path, options)
    return path.open(encoding=encoding, errors=_UNDECODABLE, newline="")


def damaged(text: str) -> bool:
    """Whether a text holds something that could not be decoded, or half a surrogate pair."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def byte_lines(path: Path, options: Options) -> Iterator[bytes | None]:
    """Lines in UTF-8, ended by LF; None for one of more than MAX_CELL bytes. Undecodable ones are no valid UTF-8."""
    encoding = encoding_of(path, options)
    if encoding in ("utf-8", "utf-8-sig"):
        with path.open("rb", buffering=BLOCK) as file:
            file.seek(len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)
            yield from bounded(file)
    else:
        with io.TextIOWrapper(path.open("rb"), encoding, _UNDECODABLE, newline="\n") as text:
            for line in bounded(text):
                yield None if line is None else line.encode("utf-8", "surrogatepass")


def bounded(file: IO[AnyStr]) -> Iterator[AnyStr | None]:
    """The lines of a file; None for one longer than MAX_CELL, which is skipped piece by piece."""
    ends = ("\n", "\r", b"\n")
    while line := file.readline(MAX_CELL + 1):
        if len(line) <= MAX_CELL or line[-1:] in ends:
            yield line
            continue
        yield None
        while (piece := file.readline(BLOCK)) and piece[-1:] not in ends:
            pass
