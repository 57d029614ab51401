"""What a hostile file is: how to write it, which source reads it, and what may come of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Write = Callable[[Path, str], None]
"""Writes the file. The second argument is the address of a server of the test's own, which nobody may ask."""

MARK = "hostile7331"
"""Part of every name and text that must not turn up elsewhere."""


@dataclass(frozen=True)
class Case:
    """One hostile file."""

    file: str
    write: Write
    outcomes: frozenset[str]
    """What may become of its rows: `kept`, and reasons of those that are not. At least one row comes out."""
    source: str = "files"
    large: bool = False
    """Whether it takes seconds or much of the disk; left to `python -m tests.hostile.measure`."""


def case(file: str, content: str | bytes | Write, *outcomes: str, source: str = "files", large: bool = False) -> Case:
    return Case(file, content if callable(content) else given(content), frozenset(outcomes), source, large)


def given(content: str | bytes) -> Write:
    """A file with this content, in which `@URL@` becomes the address of the test's server."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return lambda path, url: void(path.write_bytes(data.replace(b"@URL@", url.encode())))


def made(make: Callable[[], bytes]) -> Write:
    """A file whose content is made when it is written."""
    return lambda path, url: void(path.write_bytes(make().replace(b"@URL@", url.encode())))


def void(_: object) -> None:
    return None


def line(start: bytes, size: int, end: bytes = b"", filler: bytes = b"x") -> Write:
    """One line of `size` bytes; of NUL bytes it takes no room on the disk."""

    def write(path: Path, url: str) -> None:
        with path.open("wb") as file:
            file.write(start)
            if filler == b"\0":
                file.seek(size, 1)
                file.write(b"\0")
            else:
                for _ in range(size >> 20):
                    file.write(filler * ((1 << 20) // len(filler)))
            file.write(end)

    return write


def deflated(size: int, filler: bytes = b"\0", start: bytes = b"", end: bytes = b"") -> bytes:
    """Raw deflate of `start`, `size` bytes of filler and `end`, made without compressing it all."""

    def part(data: bytes) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)

    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = rest.compress(end) + rest.flush()
    unit = (filler * ((1 << 20) // len(filler) + 1))[: 1 << 20]
    return (part(start) if start else b"") + part(unit) * (size >> 20) + last
