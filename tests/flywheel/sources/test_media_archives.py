import gzip
import io
import json
import random
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flywheel import shards
from flywheel.errors import SourceError
from flywheel.media import encode_wav
from flywheel.recipe_sources import AudioFolderSource, ImageFolderSource
from flywheel.record import Dropped, LeftOut, Record, read_rows
from flywheel.sources import base
from flywheel.sources.listing import READ, digests
from flywheel.sources.media import reader
from flywheel.workers import here

DIGIT = r"(?P<label>\d)_(?P<group>[a-z]+)_\d+"


def png(seed=0):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 9), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


FOLDER = {
    "top.png": png(0),
    "train/cat/a.png": png(1),
    "train/cat/b.PNG": png(2),
    "train/cat/b.txt": b"a caption\n",
    "train/cat/c.png": png(3)[:60],
    "train/cat/d.png": png(4),
    "train/cat/d.txt": b"\xff\xfe\x00",
    "train/3_ann_0.png": png(5),
    "test/metadata.csv": b"file_name,text\ne.png,small\ndeep/f.png,large\ndeep/f.png,again\ngone.png,x\n",
    "test/e.png": png(6),
    "test/deep/f.png": png(7),
    "test/deep/g.png": png(8),
    "test/deep/large.png": png(9) + b"\0" * 2_000,
    "README.txt": b"about nothing",
    "notes.md": b"# notes",
    "train/.hidden.png": png(10),
    "__pycache__/i.png": png(11),
}


def zipped(members):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def tarred(members, *others):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return target.getvalue()


def dotted(members):
    """As `tar -c .` names them."""
    return tarred({f"./{name}": content for name, content in members.items()})


PACKED = {
    "pictures.zip": zipped,
    "pictures.tar": tarred,
    "pictures.tgz": lambda members: gzip.compress(dotted(members)),
    "pictures.tar.gz": lambda members: gzip.compress(tarred(members)),
}


def lay(root, members):
    for name, content in members.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def images(path, **options):
    return reader(ImageFolderSource(type="imagefolder", path=str(path), license="MIT", **options), "s")


def left(name, fate):
    return Dropped("", fate, name)


def outcomes(folder):
    return [
        row
        for entry in folder.entries()
        for row in (folder.read(entry) if entry.fate == READ else [left(entry.name, entry.fate)])
    ]


def bare(rows, prefix=""):
    """What rows say, without the archive's name; ids depend on it as well."""

    def short(place):
        return place.removeprefix(prefix)

    found = []
    for row in rows:
        if isinstance(row, LeftOut):
            found.append(type(row)("", row.reason, short(row.path), "s", row.detail))
        else:
            origin = {**row.origin, "path": short(row.origin["path"]), "group": short(row.origin["group"])}
            found.append(replace(row, id="", origin=origin))
    return sorted(found, key=lambda row: (isinstance(row, Record), repr(row)))


@pytest.mark.parametrize("options", [{}, {"pattern": DIGIT}, {"max_bytes": 1_500}])
@pytest.mark.parametrize("name", PACKED)
def test_an_archive_has_the_rows_of_the_folder_that_it_packs(tmp_path, name, options):
    expected = bare(outcomes(images(lay(tmp_path / "in", FOLDER), **options)))
    assert len({row.reason for row in expected if isinstance(row, LeftOut)}) > 3
    path = tmp_path / name
    path.write_bytes(PACKED[name](FOLDER))
    found = outcomes(images(path, **options))
    assert bare(found, f"{name}:") == expected
    assert len({row.id for row in found}) == len(found)
    places = [row.path if isinstance(row, LeftOut) else row.origin["path"] for row in found]
    assert all(place.startswith(f"{name}:") for place in places)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_tables_of_every_kind_are_read_in_archives(tmp_path, ending):
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"file_name": "a.png", "prompt": "What?", "completion": "Noise.", "label": 7}
    table = io.BytesIO(json.dumps(row).encode())
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), table)
    path = tmp_path / "p.zip"
    path.write_bytes(zipped({"x/a.png": png(), f"x/metadata.{ending}": table.getvalue()}))
    (found,) = outcomes(images(path))
    assert (found.prompt, found.completion, found.label) == ("What?", "Noise.", "7")


def test_archives_stand_in_directories_and_in_archives(tmp_path):
    inner = zipped({"a.png": png(1), "dog/b.png": png(2)})
    root = lay(
        tmp_path / "in",
        {
            "cat/part.zip": inner,
            "cat/c.png": png(3),
            "more.tar": tarred({"bird/inner.zip": inner, "bird/d.png.gz": gzip.compress(png(4))}),
            "4_eve_0.png.gz": gzip.compress(png(5)),
            "table.csv.gz": gzip.compress(b"text\none\n"),
            "letters.zip": zipped({"a.docx": b"no concern of ours"}),
            ".cache.zip": inner,
        },
    )
    found = {row.path if isinstance(row, LeftOut) else row.origin["path"]: row for row in outcomes(images(root))}
    assert {place: row.reason if isinstance(row, LeftOut) else row.label for place, row in found.items()} == {
        "4_eve_0.png.gz": None,
        "cat/c.png": "cat",
        "cat/part.zip:a.png": "cat",
        "cat/part.zip:dog/b.png": "dog",
        "letters.zip": "empty",
        "more.tar:bird/d.png": "bird",
        "more.tar:bird/inner.zip/a.png": "bird",
        "more.tar:bird/inner.zip/dog/b.png": "dog",
    }
    assert found["4_eve_0.png.gz"].image == png(5)
    (alone,) = outcomes(images(root / "4_eve_0.png.gz", pattern=DIGIT))
    assert (alone.label, alone.origin["group"]) == ("4", "eve")


def test_recordings_come_out_of_archives(tmp_path):
    samples = np.sin(np.arange(800) / 9).astype(np.float32)
    path = tmp_path / "speech.tgz"
    path.write_bytes(gzip.compress(tarred({"a.wav": encode_wav(samples, 8_000), "a.txt": b"hello"})))
    (row,) = outcomes(reader(AudioFolderSource(type="audiofolder", path=str(path)), "speech"))
    assert (row.text, row.audio) == ("hello", encode_wav(samples, 8_000))


@pytest.mark.parametrize("name", ["rows.csv", "notes.docx", "rows.csv.gz"])
def test_other_files_are_no_archive_of_pictures(tmp_path, name):
    (tmp_path / name).write_bytes(b"text\none\n")
    with pytest.raises(SourceError, match="a directory or an archive"):
        images(tmp_path / name)


def ingested(path, tmp_path, **options):
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    source = ImageFolderSource(type="imagefolder", path=str(path), **options)
    counts = base.ingest(base.Ingest([source], {}, shards.Cache(tmp_path / "cache"), here), out)
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values()) + sum(counts["quarantined"].values())
    return counts, [row.origin["path"] for row in read_rows(out / "rows")]


def hostile(kind, link):
    info = tarfile.TarInfo("b.png")
    info.type, info.linkname = kind, link
    return info


def test_hostile_members_are_quarantined_in_a_confined_child_and_write_nothing(tmp_path):
    root = tmp_path / "in"
    evil = {"../escaped.png": png(1), "/tmp/absolute.png": png(2), "C:\\windows.png": png(3), "..\\up.png": png(4)}
    bomb = zipped({"zeros.png": b"\0" * (80 << 20)})
    lay(
        root,
        {
            "evil.zip": zipped({**evil, "fine.png": png(5)}),
            "links.tar": tarred(
                {"fine.png": png(6)},
                hostile(tarfile.SYMTYPE, "/etc/passwd"),
                hostile(tarfile.LNKTYPE, "fine.png"),
                hostile(tarfile.CHRTYPE, ""),
            ),
            "cut.tgz": gzip.compress(tarred({"a.png": random.Random(0).randbytes(9_000), "b.png": png(7)}))[:5_000],
            "bomb.zip": bomb,
            "broken.zip": b"PK\x03\x04 no more",
            "twice.tar": tarred({"a.png": png(8)})[: -10_240 + 1024] + tarred({"a.png": png(9)}),
        },
    )
    before = sorted(tmp_path.rglob("*"))
    counts, kept = ingested(root, tmp_path)
    assert kept == ["evil.zip:fine.png", "links.tar:fine.png", "twice.tar:a.png"]
    assert counts["quarantined"] == {
        "unsafe_member": 7,
        "truncated": 1,
        "bomb": 1,
        "bad_zip": 1,
        "ambiguous_name": 1,
    }
    assert [p for p in sorted(tmp_path.rglob("*")) if p.suffix == ".png"] == [p for p in before if p.suffix == ".png"]


def test_tables_and_texts_of_members_do_not_lead_outside(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.png").write_bytes(png(1))
    table = b"file_name,text\n../secret.png,x\n/etc/passwd,x\na.png,fine\n"
    path = tmp_path / "p.zip"
    path.write_bytes(zipped({"a.png": png(), "metadata.csv": table}))
    rows = outcomes(images(path))
    assert [row.text for row in rows if isinstance(row, Record)] == ["fine"]
    assert sorted(row.detail for row in rows if isinstance(row, LeftOut)) == ["../secret.png", "/etc/passwd"]


def test_what_is_in_the_archive_counts_for_the_fingerprint_and_for_the_cached_rows(tmp_path):
    path = tmp_path / "p.zip"
    path.write_bytes(zipped({"a.png": png(1)}))
    first = digests(images(path).entries(), "s")
    assert ingested(path, tmp_path)[1] == ["p.zip:a.png"]
    path.write_bytes(zipped({"b.png": png(1), "c.png": png(2) + b"\0" * 5_000}))
    assert digests(images(path).entries(), "s") != first
    assert ingested(path, tmp_path)[1] == ["p.zip:b.png", "p.zip:c.png"]
    counts, kept = ingested(path, tmp_path, max_bytes=4_000)
    assert (kept, counts["dropped"]) == (["p.zip:b.png"], {"too_large": 1})


@settings(max_examples=40, deadline=None)
@given(data=st.data(), name=st.sampled_from([*PACKED, "1.png.gz"]))
def test_damaged_archives_give_rows_and_reasons_alone(tmp_path_factory, data, name):
    whole = (
        gzip.compress(png()) if name == "1.png.gz" else PACKED[name]({"a/b.png": png(), "a/metadata.csv": b"x\n1\n"})
    )
    place = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + data.draw(st.integers(0, 4)) :])
    for row in outcomes(images(path)):
        assert isinstance(row, Record) or row.reason
