"""Hostile archives: zip, tar, gzip."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.hostile.cases import MARK, Case, case, deflated, made

HELLO = f"hello {MARK}".encode()


@dataclass(frozen=True)
class Member:
    """One member of a zip archive, whose headers may lie."""

    name: bytes
    data: bytes = b""
    """As it is packed."""
    size: int = 0
    method: int = 0
    flags: int = 0
    attributes: int = 0
    crc: int = 0
    """Wrong for most: bombs are stopped before it is looked at."""


def stored(name: str | bytes, data: bytes = HELLO, **more: int) -> Member:
    encoded = name.encode() if isinstance(name, str) else name
    return Member(encoded, data, len(data), crc=zlib.crc32(data), **more)


def packed(name: str, data: bytes, size: int, crc: int = 0) -> Member:
    return Member(name.encode(), data, size, method=8, crc=crc)


def zipped(members: Sequence[Member], overlapping: bool = False, total: int | None = None) -> bytes:
    """A zip archive. Where members overlap, all headers of the directory point to the first one's data."""
    out, directory = io.BytesIO(), io.BytesIO()
    for number, member in enumerate(members):
        offset = 0 if overlapping else out.tell()
        about = (member.flags, member.method, 0, 33, member.crc, len(member.data), member.size, len(member.name), 0)
        if not (overlapping and number):
            out.write(struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, *about) + member.name + member.data)
        head = struct.pack("<4sHHHHHHIIIHH", b"PK\1\2", 3 << 8 | 20, 20, *about)
        directory.write(head + struct.pack("<HHHII", 0, 0, 0, member.attributes, offset) + member.name)
    start, listed = out.tell(), directory.getvalue()
    count = (len(members) if total is None else total) & 0xFFFF
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(listed), start, 0)
    return out.getvalue() + listed + end


def _one(member: Member) -> Callable[[], bytes]:
    return lambda: zipped([stored("own.txt"), member])


def _nested(levels: int, width: int) -> bytes:
    """42.zip in small: archives of archives of archives of bombs."""
    data = zipped([packed("bomb.txt", deflated(64 << 20), 64 << 20, zlib.crc32(bytes(64 << 20)))])
    for _ in range(levels):
        data = zipped([stored(f"{n}.zip", data) for n in range(width)])
    return data


def _encrypted() -> bytes:
    return zipped([stored("secret.txt", b"\1" * 99, flags=1), stored("own.txt")])


def _bomb(size: int) -> Callable[[], bytes]:
    return lambda: zipped([packed("bomb.txt", deflated(size), size & 0xFFFFFFFF)])


def _overlapping() -> bytes:
    """A few megabytes of zeros behind a thousand names (D. Fifield, A better zip bomb, 2019)."""
    one = packed("0.txt", deflated(4 << 20), 4 << 20)
    return zipped([one, *(Member(b"%d.txt" % n, one.data, one.size, 8) for n in range(1, 1_000))], overlapping=True)


def _itself() -> bytes:
    """An archive whose member begins at the archive's own start."""
    inner = zipped([stored("a.txt")])
    return inner[:-22] + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, 51, 0, 0)


# ---------------------------------------------------------------- tar and gzip


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def tarred(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in entries:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _tar(*entries: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> Callable[[], bytes]:
    with_data = [(info, HELLO if info.type == tarfile.REGTYPE else b"") for info in entries]
    return lambda: tarred((entry("own.txt"), HELLO), *with_data, form=form)


def _sparse() -> bytes:
    """A GNU sparse member that claims a terabyte of holes."""
    info = entry("sparse.txt", tarfile.GNUTYPE_SPARSE)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"%011o\0" % 0, b"%011o\0" % 0
    block[483:495] = b"%011o\0" % (1 << 30)
    return _summed(block) + b"\0" * 1_024


def _claims(size: bytes, kind: bytes = tarfile.REGTYPE) -> Callable[[], bytes]:
    """A member with this size in its header and little behind it."""

    def make() -> bytes:
        block = bytearray(entry(f"{MARK}.txt", kind).tobuf(tarfile.GNU_FORMAT))
        block[124:136] = size
        return _summed(block) + HELLO.ljust(512, b"\0")

    return make


def _summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax(**records: str) -> Callable[[], bytes]:
    info = entry("plain.txt")
    info.pax_headers = dict(records)
    return lambda: tarred((entry("own.txt"), HELLO), (info, HELLO), form=tarfile.PAX_FORMAT)


def _tgz_bomb(size: int) -> Callable[[], bytes]:
    block = entry("bomb.txt", size=size).tobuf(tarfile.GNU_FORMAT)
    return lambda: _gz(deflated(size, start=block, end=b"\0" * 1_024))


def _gz(raw: bytes, crc: int = 0, size: int = 0) -> bytes:
    """A gzip file around raw deflate."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + raw + struct.pack("<II", crc, size & 0xFFFFFFFF)


def _gz_named() -> bytes:
    head = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + f"../../{MARK}.txt\0".encode()
    return head + zlib.compress(HELLO)[2:-4] + struct.pack("<II", zlib.crc32(HELLO), len(HELLO))


def _many_members() -> bytes:
    return zipped([stored(f"{n}.txt", b"a") for n in range(20_000)])


_SYMLINK, _DEVICE = 0o120777 << 16, 0o060777 << 16
_OUT = f"../../../../../../../../tmp/{MARK}.txt"

ARCHIVES: dict[str, Case] = {
    "zip_bomb": case("a.zip", made(_bomb(1 << 30)), "bomb"),
    "zip_bomb_10_gb": case("a.zip", made(_bomb(10 << 30)), "bomb", "parser_timeout", large=True),
    "zip_nested": case("a.zip", made(lambda: _nested(3, 4)), "bomb"),
    "zip_nested_wide": case("a.zip", made(lambda: _nested(1, 20)), "bomb", "kept", "parser_memory"),
    "zip_overlapping": case("a.zip", made(_overlapping), "bomb", "bad_zip"),
    "zip_itself": case("a.zip", made(_itself), "bad_zip", "kept", "truncated"),
    "zip_members": case("a.zip", made(_many_members), "kept", "bomb", large=True),
    "zip_parent": case("a.zip", made(_one(stored(_OUT))), "unsafe_member", "kept"),
    "zip_absolute": case("a.zip", made(_one(stored(f"/tmp/{MARK}.txt"))), "unsafe_member", "kept"),
    "zip_backslash": case("a.zip", made(_one(stored(_OUT.replace("/", "\\")))), "unsafe_member", "kept"),
    "zip_drive": case("a.zip", made(_one(stored(f"C:\\{MARK}.txt"))), "unsafe_member", "kept"),
    "zip_share": case("a.zip", made(_one(stored(f"\\\\server\\{MARK}.txt"))), "unsafe_member", "kept"),
    "zip_dots": case("a.zip", made(_one(stored(f"a/./..//../{MARK}.txt"))), "unsafe_member", "kept"),
    "zip_symlink": case("a.zip", made(_one(stored("l.txt", b"/etc/passwd", attributes=_SYMLINK))), "unsafe_member",
                        "kept"),
    "zip_device": case("a.zip", made(_one(stored("d.txt", attributes=_DEVICE))), "unsafe_member", "kept"),
    "zip_nul_in_name": case("a.zip", made(_one(stored(b"own.txt\0.exe"))), "unsafe_member", "unknown_format", "kept"),
    "zip_odd_name": case("a.zip", made(_one(stored("a\n\r\x1b[2J\u202e\u200bb/-rf \t.txt"))), "kept"),
    "zip_name_of_bytes": case("a.zip", made(_one(stored(b"\xff\xfe.txt", flags=0x800))), "kept", "bad_zip"),
    "zip_long_name": case("a.zip", made(_one(stored("a" * 60_000 + ".txt"))), "kept"),
    "zip_long_directories": case("a.zip", made(_one(stored("a/" * 30_000 + "a.txt"))), "kept"),
    "zip_same_names": case("a.zip", made(lambda: zipped([stored("a.txt")] * 9)), "kept"),
    "zip_encrypted": case("a.zip", made(_encrypted), "encrypted", "kept"),
    "zip_method": case("a.zip", made(_one(stored("m.txt", method=97))), "bad_zip", "kept"),
    "zip_size_lies": case("a.zip", made(_one(Member(b"l.txt", zlib.compress(b"a" * 9_999)[2:-4], 1, 8))), "bad_zip",
                          "truncated", "kept"),
    "zip_size_huge": case("a.zip", made(_one(Member(b"l.txt", HELLO, 0xFFFFFFFE))), "bad_zip", "truncated", "kept"),
    "zip_crc": case("a.zip", made(_one(Member(b"l.txt", HELLO, len(HELLO), crc=7))), "bad_zip", "kept"),
    "zip_count_lies": case("a.zip", made(lambda: zipped([stored("a.txt")], total=65_535)), "bad_zip", "kept"),
    "zip_not": case("a.zip", HELLO, "bad_zip"),
    "zip_of_unknown": case("a.zip", made(_one(stored("run.exe"))), "unknown_format", "kept"),
    "zip_of_hostile": case("a.zip", made(lambda: zipped([
        stored("a.json", b"[" * 50_000), stored("b.csv", b'text\n"open'), stored("c.pdf", b"%PDF-1.7"),
        stored("d.xlsx"), stored("e.parquet"), stored("f.tgz"), stored("g.txt.gz"), stored("h.docx")])),
        "bad_json", "bad_csv", "bad_pdf", "bad_xlsx", "bad_parquet", "bad_tar", "bad_gzip", "bad_docx", "truncated"),
    "tar_parent": case("a.tar", made(_tar(entry(_OUT))), "unsafe_member", "kept"),
    "tar_absolute": case("a.tar", made(_tar(entry(f"/tmp/{MARK}.txt"))), "unsafe_member", "kept"),
    "tar_symlink": case("a.tar", made(_tar(entry("l.txt", tarfile.SYMTYPE, "/etc/passwd"))), "unsafe_member", "kept"),
    "tar_through_symlink": case("a.tar", made(_tar(entry("d", tarfile.SYMTYPE, "/tmp"), entry(f"d/{MARK}.txt"))),
                                "unsafe_member", "kept"),
    "tar_hardlink": case("a.tar", made(_tar(entry("l.txt", tarfile.LNKTYPE, "/etc/passwd"))), "unsafe_member", "kept"),
    "tar_hardlink_within": case("a.tar", made(_tar(entry("l.txt", tarfile.LNKTYPE, "own.txt"))), "unsafe_member",
                                "kept"),
    "tar_devices": case("a.tar", made(_tar(*(entry(f"{n}.txt", kind) for n, kind in enumerate(
        (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"Z"))))), "unsafe_member", "kept",
        "empty"),
    "tar_sparse": case("a.tar", made(_sparse), "unsafe_member", "truncated", "bad_tar", "bomb"),
    "tar_size_huge": case("a.tar", made(_claims(b"\x80" + b"\0" * 3 + b"\x7f" * 8)), "truncated", "bad_tar", "bomb"),
    "tar_size_negative": case("a.tar", made(_claims(b"\xff" * 12)), "truncated", "bad_tar", "bomb", "empty", "kept"),
    "tar_long_name_huge": case("a.tar", made(_claims(b"77777777777\0", tarfile.GNUTYPE_LONGNAME)), "truncated",
                               "bad_tar", "bomb"),
    "tar_pax_huge": case("a.tar", made(_claims(b"77777777777\0", tarfile.XHDTYPE)), "truncated", "bad_tar", "bomb"),
    "tar_pax_path": case("a.tar", made(_pax(path=_OUT)), "unsafe_member", "kept"),
    "tar_pax_size": case("a.tar", made(_pax(size="99999999999999")), "truncated", "bad_tar", "kept", "bomb"),
    "tar_pax_sparse": case("a.tar", made(_pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.name": _OUT, "GNU.sparse.realsize": "1" * 30})), "unsafe_member", "bad_tar", "kept", "truncated"),
    "tar_long_name": case("a.tar", made(_tar(entry("a" * 100_000 + ".txt"))), "kept"),
    "tar_checksum": case("a.tar", made(lambda: _claims(b"%011o\0" % 9)().replace(b"ustar", b"USTAR")), "bad_tar",
                         "truncated", "kept"),
    "tar_not": case("a.tar", HELLO * 99, "bad_tar", "truncated"),
    "tar_empty": case("a.tar", b"", "truncated", "bad_tar", "empty"),
    "tgz_bomb": case("a.tgz", made(_tgz_bomb(1 << 30)), "bomb"),
    "tgz_bomb_10_gb": case("a.tar.gz", made(_tgz_bomb(8 << 30)), "bomb", large=True),
    "gz_bomb": case("a.txt.gz", made(lambda: _gz(deflated(1 << 30))), "bomb"),
    "gz_bomb_10_gb": case("a.csv.gz", made(lambda: _gz(deflated(10 << 30))), "bomb", "parser_timeout", large=True),
    "gz_bomb_in_zip": case("a.zip", made(_one(stored("b.txt.gz", _gz(deflated(512 << 20))))), "bomb", "kept"),
    "gz_members": case("a.txt.gz", made(lambda: gzip.compress(HELLO, mtime=0) * 9), "kept"),
    "gz_many_members": case("a.txt.gz", made(lambda: gzip.compress(b"", mtime=0) * 200_000), "kept", "empty"),
    "gz_rest": case("a.txt.gz", made(lambda: gzip.compress(HELLO, mtime=0) + b"garbage"), "bad_gzip"),
    "gz_crc": case("a.txt.gz", made(lambda: _gz(zlib.compress(HELLO)[2:-4], 7, len(HELLO))), "bad_gzip"),
    "gz_name": case("a.txt.gz", made(_gz_named), "kept"),
    "gz_not": case("a.txt.gz", HELLO, "bad_gzip"),
    "gz_of_gz": case("a.txt.gz", made(lambda: gzip.compress(gzip.compress(HELLO))), "wrong_format"),
}  # fmt: skip


def office(parts: dict[str, bytes]) -> bytes:
    """The zip archive of an office file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()
