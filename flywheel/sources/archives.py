"""Members of zip, tar and gzip archives, one at a time: nothing is written under a name that an archive chose."""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

from flywheel.sources.decoding import BLOCK
from flywheel.sources.listing import printable
from flywheel.sources.parsed import Bad, Found, Options

MAX_MEMBERS = 100_000
MAX_DEPTH = 2
"""An archive within an archive is opened, a third one is not."""
MAX_UNPACKED, FREE, MAX_RATIO = 16 << 30, 64 << 20, 200
"""An archive may unpack to MAX_RATIO times its size, to FREE bytes in any case, and to MAX_UNPACKED bytes at most."""
MAX_OFFICE = 1 << 30
"""Bytes that a DOCX or XLSX file may unpack to."""

_OLE = b"\xd0\xcf\x11\xe0"
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError)
"""What the libraries raise for archives that are damaged."""


def parse(path: Path, options: Options) -> Iterator[Found | Bad]:
    """The rows of all members of known formats. Position: `member/name.csv:17`; a gzip file has no member's name.

    Bad, besides what the parsers of the members say: `unknown_format`, `unsafe_member` (`../`, absolute names, links,
    devices), `encrypted`, `bomb`, `truncated`, `bad_zip`, `bad_tar`, `bad_gzip`.
    """
    from flywheel.sources import formats

    for member in unpack(path, lambda name: formats.suffix(name) != ""):
        if isinstance(member, Bad):
            yield member
            continue
        name, file = member
        parser = formats.parser(file.name)
        for part in parser(file, options) if parser else ():
            yield replace(part, position=":".join(filter(None, (name, part.position))))


def unpack(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Path] | Bad]:
    """The name of each wanted member, and a temporary file with its content that lives until the next one is asked for.

    Archives within are opened, and their names put before those of their members. The rest is `unknown_format`.
    """
    yield from _unpack(path, "", wanted, _Budget(path), 1)


# ---------------------------------------------------------------- caps


class _Bomb(Exception):
    """An archive unpacks to too much."""


class _Budget:
    """What an archive, with all archives in it, may still unpack to."""

    def __init__(self, path: Path) -> None:
        self.bytes = min(MAX_UNPACKED, max(FREE, MAX_RATIO * path.stat().st_size))
        self.members = MAX_MEMBERS
        self.spent = False

    def spend(self, size: int, members: int = 0) -> None:
        self.bytes -= size
        self.members -= members
        if self.bytes < 0 or self.members < 0:
            raise _Bomb(
                f"unpacks to more than {MAX_RATIO} times its size" if self.bytes < 0 else f"over {MAX_MEMBERS} members"
            )

    def cover(self, size: int) -> None:
        """Refuse what could not be paid for: libraries skip it step by step, however far beyond the end it leads."""
        if size > self.bytes:
            raise _Bomb(f"a member of {size} bytes")


class _Metered(io.RawIOBase):
    """A stream that pays from a budget for every byte it gives."""

    def __init__(self, source: Any, budget: _Budget) -> None:
        self._source, self._budget = source, budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self._budget.spend(len(data))
        return data


# ---------------------------------------------------------------- members


@dataclass(frozen=True, slots=True)
class _Member:
    """One member: how to open it, or why not."""

    name: str
    open: Callable[[], IO[bytes] | _Metered | None]
    fault: str = ""


def _zip(path: Path, budget: _Budget) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            budget.spend(0, members=1)
            if not info.is_dir():
                yield _Member(info.orig_filename, _opener(archive, info, budget), _zip_fault(info))


def _opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> Callable[[], _Metered]:
    return lambda: _Metered(archive.open(info), budget)


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "encrypted"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "unsafe_member" if kind not in (0, stat.S_IFREG) else ""


class _Header(tarfile.TarInfo):
    """A header that leaves behind why there was none: the library takes a damaged one for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            archive.last_header = error  # type: ignore[attr-defined]
            raise


def _tar(path: Path, budget: _Budget) -> Iterator[_Member]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = gzip.GzipFile(fileobj=file) if packed else file
        with tarfile.open(fileobj=_Metered(source, budget), mode="r|", tarinfo=_Header) as archive:
            for info in archive:
                budget.spend(0, members=1)
                budget.cover(info.size)
                if not info.isdir():
                    fault = "" if info.isreg() and not info.issparse() else "unsafe_member"
                    yield _Member(info.name, lambda info=info: archive.extractfile(info), fault)  # type: ignore[misc]
            end = getattr(archive, "last_header", None)
            if end is not None and not isinstance(end, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise EOFError(f"no end of the archive: {end}")


def _gzip(path: Path, budget: _Budget) -> Iterator[_Member]:
    with gzip.open(path) as file:
        yield _Member("", lambda: _Metered(file, budget))


_READERS: dict[str, Callable[[Path, _Budget], Iterator[_Member]]] = {"zip": _zip, "tar": _tar, "gzip": _gzip}


def archive_kind(name: str) -> str:
    """The kind of archive of a file by its name, or ""."""
    lower = name.lower()
    if lower.endswith((".tar", ".tgz", ".tar.gz")):
        return "tar"
    return "zip" if lower.endswith(".zip") else "gzip" if lower.endswith(".gz") else ""


# ---------------------------------------------------------------- unpacking


def _unpack(
    path: Path, name: str, wanted: Callable[[str], bool], budget: _Budget, depth: int
) -> Iterator[tuple[str, Path] | Bad]:
    kind = archive_kind(path.name)
    names = Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for number, member in enumerate(_READERS[kind](path, budget)):
                inner = _inner_name(path, kind, member.name)
                names[inner] += 1
                full = "/".join(filter(None, (name, member.name and _readable(member.name))))
                full += f"#{names[inner]}" if names[inner] > 1 else ""
                file = Path(scratch, f"{number}{_endings(inner)}")
                fault = _fault(member, inner, wanted, depth) or _copy(member, file, full, kind, budget)
                if fault:
                    yield replace(fault, position=full)
                elif archive_kind(inner):
                    yield from _unpack(file, full, wanted, budget, depth + 1)
                else:
                    yield full, file
                file.unlink(missing_ok=True)
                if budget.spent:
                    return
        except _Bomb as bomb:
            budget.spent = True
            yield Bad(name, "bomb", str(bomb))
        except (*BROKEN, OSError) as error:
            yield _broken(name, kind, error)


def _inner_name(path: Path, kind: str, name: str) -> str:
    """The name by which the content is known: that of the file itself where gzip packs just one."""
    return path.name[: -len(".gz")] if kind == "gzip" else name


def _fault(member: _Member, name: str, wanted: Callable[[str], bool], depth: int) -> Bad | None:
    """Why a member is not unpacked."""
    if member.fault == "encrypted":
        return Bad("", "encrypted")
    parts = re.split(r"[/\\]", member.name)
    if member.fault or ".." in parts or (member.name and not parts[0]) or re.match(r"[A-Za-z]:", member.name):
        return Bad("", "unsafe_member", "a link, a device, or a name that leads out of the archive")
    if "\0" in member.name:
        return Bad("", "unsafe_member", "a NUL in its name")
    if archive_kind(name):
        return Bad("", "bomb", f"archives nested more than {MAX_DEPTH} deep") if depth == MAX_DEPTH else None
    return None if wanted(name) else Bad("", "unknown_format", _endings(name))


def _copy(member: _Member, file: Path, name: str, kind: str, budget: _Budget) -> Bad | None:
    """Unpack one member; Bad where that fails."""
    try:
        source = member.open()
        if source is None:
            return Bad(name, "unsafe_member")
        with source, file.open("wb") as target:
            while block := source.read(BLOCK):
                target.write(block)
    except _Bomb as bomb:
        budget.spent = True
        return Bad(name, "bomb", str(bomb))
    except (*BROKEN, OSError) as error:
        return _broken(name, kind, error)
    return None


def _broken(name: str, kind: str, error: Exception) -> Bad:
    truncated = isinstance(error, EOFError) or "unexpected end" in str(error) or "truncated" in str(error)
    return Bad(name, "truncated" if truncated else f"bad_{kind}", str(error)[:200])


def _endings(name: str) -> str:
    """The last two endings of a name, for a temporary file: `.jsonl.gz`."""
    found = re.search(r"(?:\.[a-z0-9]{1,10}){1,2}\Z", name.lower())
    return found.group() if found else ""


def _readable(name: str) -> str:
    """A member's name as a place to show: no control or direction characters, and of bounded length."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable(name))
    return shown if len(shown) <= 500 else f"{shown[:240]}...{zlib.crc32(name.encode('utf-8', 'replace')):08x}"


# ---------------------------------------------------------------- office files


def office_fault(path: Path, reason: str, look: Callable[[str, Iterable[bytes]], str] | None = None) -> Bad | None:
    """Why an office file, which is a zip archive, must not be opened, or None.

    `look` is given the name and the blocks of each member, reads them all, and may object.
    """
    with path.open("rb") as file:
        if file.read(4) == _OLE:
            return Bad("", "encrypted", "a file with a password, or of an office before 2007")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            size = sum(info.file_size for info in infos)
            if len(infos) > MAX_MEMBERS or size > min(MAX_OFFICE, max(FREE, MAX_RATIO * path.stat().st_size)):
                return Bad("", "bomb", f"{len(infos)} members of {size} bytes")
            for info in infos if look else ():
                with archive.open(info) as member:
                    complaint = look(info.filename, iter(lambda: member.read(BLOCK), b"")) if look else ""
                if complaint:
                    return Bad("", "bomb", complaint)
    except (*BROKEN, OSError) as error:
        return Bad("", reason, str(error)[:200])
    return None
