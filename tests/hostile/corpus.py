"""The corpus of hostile files by name, and valid files of every format with seeded ways to damage them."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import cache

from tests.hostile.cases import MARK, Case
from tests.hostile.corpus_archives import ARCHIVES, entry, stored, tarred, zipped
from tests.hostile.corpus_documents import DOCUMENTS, page, parquet, pdf
from tests.hostile.corpus_media import MEDIA, picture, recording
from tests.hostile.corpus_office import OFFICE, docx, xlsx
from tests.hostile.corpus_text import TEXT

CASES: dict[str, Case] = {**TEXT, **ARCHIVES, **OFFICE, **DOCUMENTS, **MEDIA}

_PROSE = "".join(f"{MARK} says \u201cgrün\u201d, {n} times.\n\n" for n in range(40))
_ROWS = [{"text": f"{MARK} grün, {n}", "label": str(n % 2)} for n in range(40)]
_PARAGRAPHS = "".join(f"<p class=a>{row['text']}</p>" for row in _ROWS)
_HTML = f"<html><head><title>t</title></head><body><main>{_PARAGRAPHS}</main>"
_CSV = "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in _ROWS)


def _several() -> list[tuple[str, bytes]]:
    return [("a/one.txt", _PROSE.encode()), ("two.csv", _CSV.encode()), ("three.jsonl", _lines().encode())]


def _lines() -> str:
    return "".join(f"{json.dumps(row)}\n" for row in _ROWS)


def _tar() -> bytes:
    return tarred(*((entry(name), data) for name, data in _several()))


SOUND: dict[str, tuple[str, Callable[[], bytes]]] = {
    "txt": ("files", _PROSE.encode),
    "csv": ("files", _CSV.encode),
    "tsv": ("files", _CSV.replace(",", "\t").encode),
    "json": ("files", lambda: json.dumps(_ROWS, ensure_ascii=False, indent=1).encode()),
    "jsonl": ("files", lambda: _lines().encode()),
    "html": ("files", _HTML.encode),
    "pdf": ("files", lambda: pdf(page())),
    "docx": ("files", docx),
    "xlsx": ("files", xlsx),
    "parquet": ("files", lambda: parquet({"text": [row["text"] for row in _ROWS]})),
    "zip": ("files", lambda: zipped([stored(name, data) for name, data in _several()])),
    "tar": ("files", _tar),
    "tgz": ("files", lambda: gzip.compress(_tar(), mtime=0)),
    "jsonl.gz": ("files", lambda: gzip.compress(_lines().encode(), mtime=0)),
    "py": ("code", lambda: f"# coding: utf-8\ndef f():\n    return '{MARK} \u00fc'\n".encode()),
    **{form: ("imagefolder", lambda form=form: picture(form)) for form in ("png", "jpeg", "gif", "bmp", "tiff",
        "webp")},
    **{form: ("audiofolder", lambda form=form: recording(form)) for form in ("wav", "flac", "ogg", "mp3")},
}  # fmt: skip
"""Ending → type of the source that reads it, and a small valid file."""


@cache
def sound(ending: str) -> bytes:
    return SOUND[ending][1]()


def truncated(ending: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """A valid file cut off at seeded places, the first and the last byte among them."""
    data, draw = sound(ending), random.Random(f"{ending} {seed}")
    for place in sorted({0, 1, len(data) - 1, *(draw.randrange(len(data)) for _ in range(count))}):
        yield data[:place]


def flipped(ending: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """A valid file with bytes changed, left out, doubled or moved at seeded places; half of office files within."""
    draw = random.Random(f"{ending} {seed} flips")
    for number in range(count):
        if ending in ("docx", "xlsx") and number % 2:
            yield _flipped_within(sound(ending), draw)
        else:
            yield _flip(sound(ending), draw)


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at, length = draw.randrange(len(changed)), draw.choice((1, 2, 4, 8, 64))
        kind = draw.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[at : at + length] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        elif kind == 3 and len(changed) > length + 1:
            del changed[at : at + length]
            changed = changed or bytearray(b"\0")
        else:
            changed[at : at + length] = draw.randbytes(length)
    return bytes(changed)


def _flipped_within(data: bytes, draw: random.Random) -> bytes:
    """Damage inside of one member of an office file, packed again as it should be."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), _flip(old.read(name), draw) if name == chosen else old.read(name))
    return out.getvalue()
