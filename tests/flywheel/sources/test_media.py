import csv
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flywheel import shards
from flywheel.errors import RecipeError, SourceError
from flywheel.media import encode_wav
from flywheel.recipe_sources import AudioFolderSource, ImageFolderSource
from flywheel.record import LeftOut, Quarantined, Record, read_rows
from flywheel.sources import base
from flywheel.sources.listing import READ, digests
from flywheel.sources.media import reader
from flywheel.sources.media_metadata import Described, read_table
from flywheel.workers import here

DIGITS = Path(os.environ.get("FLYWHEEL_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "spoken-digits"
DIGIT = r"(?P<label>\d)_(?P<group>[a-z]+)_\d+"


def png(seed=0):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 20), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def lay(root, *names, data=None):
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if data is not None else png(seed))


def images(root, **options):
    return reader(ImageFolderSource(type="imagefolder", path=str(root), license="CC0-1.0", **options), "pictures")


def outcomes(folder):
    return [row for entry in folder.entries() if entry.fate == READ for row in folder.read(entry)]


def known(folder):
    """Path → (text, label, group) of rows, or the reason."""
    return {
        (row.path if isinstance(row, LeftOut) else row.origin["path"]): (
            row.reason if isinstance(row, LeftOut) else (row.text, row.label, row.origin["group"])
        )
        for row in outcomes(folder)
    }


def test_directories_are_labels_and_files_keep_their_bytes(tmp_path):
    lay(tmp_path, "train/cat/a.png", "train/dog/b.PNG", "c.png", "notes.md", ".hidden.png", "cat/README.txt")
    folder = images(tmp_path)
    assert known(folder) == {
        "train/cat/a.png": (None, "cat", "train/cat/a.png"),
        "train/dog/b.PNG": (None, "dog", "train/dog/b.PNG"),
        "c.png": (None, None, "c.png"),
    }
    assert {entry.name: entry.fate for entry in folder.entries() if entry.fate} == {"cat/README.txt": "unpaired"}
    rows = outcomes(folder)
    assert rows[1].image == png(0)
    assert rows[1].origin == {
        "source": "pictures",
        "path": "train/cat/a.png",
        "license": "CC0-1.0",
        "size": len(png(0)),
        "group": "train/cat/a.png",
    }
    assert [row.id for row in outcomes(images(tmp_path))] == [row.id for row in rows]


def write_table(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_a_table_describes_the_files_below_it(tmp_path, name):
    lay(tmp_path, "train/a.png", "train/deep/b.png", "train/c.png", "other/d.png")
    rows = [
        {"file_name": "a.png", "caption": 'a "small", grey\nsquare', "label": "3"},
        {"file_name": "deep/b.png", "caption": "ü", "label": "4"},
        {"file_name": "deep/../deep/b.png", "caption": "again", "label": "4"},
        {"file_name": "gone.png", "caption": "x", "label": "5"},
        {"file_name": "../other/d.png", "caption": "not below", "label": "5"},
        {"file_name": "/etc/passwd", "caption": "x", "label": "5"},
    ]
    write_table(tmp_path / "train" / name, rows)
    found = outcomes(images(tmp_path))
    kept = [(r.origin["path"], r.text, r.label, r.origin["group"]) for r in found if isinstance(r, Record)]
    assert kept == [
        ("other/d.png", None, "other", "other/d.png"),
        ("train/a.png", 'a "small", grey\nsquare', "3", "train/a.png"),
        ("train/deep/b.png", "ü", "4", "train/deep/b.png"),
        ("train/deep/b.png", "again", "4", "train/deep/b.png"),
    ]
    left = [(r.reason, r.detail) for r in found if isinstance(r, Quarantined)]
    assert sorted(left) == [
        ("missing_file", "/etc/passwd"),
        ("missing_file", "other/d.png"),
        ("missing_file", "train/gone.png"),
        ("no_metadata", "its name is in no table"),
    ]
    assert len({r.id for r in found}) == len(found)


def test_labels_may_be_numbers_and_prompts_come_with_completions(tmp_path):
    lay(tmp_path, "a.png", "b.png")
    rows = [
        {"file_name": "a.png", "label": 7, "group": "g"},
        {"file_name": "b.png", "prompt": "What is it?", "completion": "Noise."},
    ]
    write_table(tmp_path / "metadata.jsonl", rows)
    a, b = (row for row in outcomes(images(tmp_path)) if isinstance(row, Record))
    assert (a.label, a.origin["group"]) == ("7", "g")
    assert (b.prompt, b.completion, b.label) == ("What is it?", "Noise.", None)


def test_texts_lie_beside_their_files(tmp_path):
    lay(tmp_path, "x/a.png", "x/b.png", "x/c.png")
    (tmp_path / "x/a.txt").write_text(" a caption\n", encoding="utf-8-sig")
    (tmp_path / "x/b.txt").write_bytes(b"\xff\xfe\x00")
    assert known(images(tmp_path)) == {
        "x/a.png": ("a caption", None, "x/a.png"),
        "x/b.png": "undecodable",
        "x/c.png": (None, "x", "x/c.png"),
    }


def test_names_are_taken_apart_by_a_pattern(tmp_path):
    lay(tmp_path, "in/3_ann_0.png", "in/odd.png", "in/4_bob_1.png")
    (tmp_path / "in/4_bob_1.txt").write_text("four")
    assert known(images(tmp_path, pattern=DIGIT)) == {
        "in/3_ann_0.png": (None, "3", "ann"),
        "in/4_bob_1.png": ("four", "4", "bob"),
        "in/odd.png": "no_match",
    }


@pytest.mark.parametrize("pattern", ["(", "no group", "(?P<kind>.*)"])
def test_a_pattern_that_fills_nothing_is_an_error_of_the_recipe(tmp_path, pattern):
    lay(tmp_path, "a.png")
    with pytest.raises(RecipeError, match="pattern"):
        images(tmp_path, pattern=pattern)


def test_a_folder_without_pictures_is_an_error_of_the_source(tmp_path):
    with pytest.raises(SourceError):
        images(tmp_path).entries()
    with pytest.raises(SourceError):
        images(tmp_path / "nowhere")


def test_links_do_not_lead_outside(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    lay(inside, "a.png", "b.png")
    lay(outside, "secret.png")
    (outside / "secret.txt").write_text("secret")
    (outside / "t.csv").write_text("file_name,text\na.png,secret\n")
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "b.txt").symlink_to(outside / "secret.txt")
    (inside / "metadata.csv").symlink_to(outside / "t.csv")
    folder = images(inside)
    assert Counter(entry.fate for entry in folder.entries()) == {READ: 2, "outside_root": 3}
    assert all(row.text is None for row in outcomes(folder))


def ingested(source, tmp_path, name):
    out = tmp_path / name
    out.mkdir()
    job = base.Ingest([source], {}, shards.Cache(tmp_path / "cache"), here)
    return base.ingest(job, out), out


def test_hostile_files_are_quarantined_in_a_confined_child(tmp_path):
    root = tmp_path / "in"
    lay(root, "fine.png")
    lay(root, "bomb.png", data=_png_of_zeros(20_000))
    lay(root, "cut.png", data=png()[:200])
    lay(root, "empty.png", data=b"")
    lay(root, "program.jpg", data=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    lay(root, "large.png", data=b"\0" * 2_000)
    counts, _ = ingested(ImageFolderSource(type="imagefolder", path=str(root), max_bytes=1_999), tmp_path, "small")
    assert (counts["kept"], counts["dropped"]) == (1, {"too_large": 2})
    counts, out = ingested(ImageFolderSource(type="imagefolder", path=str(root)), tmp_path, "out")
    assert counts["quarantined"] == {"bomb": 1, "corrupt_image": 4}
    assert counts["read"] == 6 == counts["kept"] + sum(counts["quarantined"].values())
    assert [row.image for row in read_rows(out / "rows")] == [png()]


def _png_of_zeros(side):
    """A few hundred kilobytes that unfold to side x side pixels."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_stands_beside_a_file_counts_for_the_fingerprint_and_for_the_cached_rows(tmp_path):
    root = tmp_path / "in"
    lay(root, "a.png", "b.png")
    (root / "a.txt").write_text("first")
    source = ImageFolderSource(type="imagefolder", path=str(root))
    seen = []
    for name, change in (
        ("0", lambda: None),
        ("1", lambda: (root / "a.txt").write_text("second")),
        ("2", lambda: write_table(root / "metadata.csv", [{"file_name": "b.png", "text": "third"}])),
        ("3", lambda: write_table(root / "metadata.csv", [{"file_name": "b.png", "text": "fourth"}])),
    ):
        change()
        _, out = ingested(source, tmp_path, name)
        seen.append(([row.text for row in read_rows(out / "rows")], digests(images(root).entries(), "in")))
    assert [texts for texts, _ in seen] == [
        ["first", None],
        ["second", None],
        ["second", "third"],
        ["second", "fourth"],
    ]
    assert all(seen[i][1] != seen[i + 1][1] for i in range(3))


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_bad(tmp_path_factory, ending, data):
    path = tmp_path_factory.getbasetemp() / f"metadata{ending}"
    for start in (b"", b"file_name,text\n", b'{"file_name": "a.png"}\n'):
        path.write_bytes(start + data)
        for row in read_table(path, "in"):
            assert isinstance(row, Described) or row.reason.islower()


def test_rows_of_a_table_that_say_nothing_useful_are_quarantined(tmp_path):
    lay(tmp_path, "a.png")
    lines = [
        '{"file_name": "a.png", "text": ["x"]}',
        "[1]",
        "{",
        '{"text": "x"}',
        '{"file_name": "a.png", "text": "\\ud800"}',
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join([*lines, "[" * 100_000]))
    found = {row.path: row.reason for row in outcomes(images(tmp_path)) if isinstance(row, Quarantined)}
    assert [found[f"metadata.jsonl:{number}"] for number in range(1, 7)] == [
        "not_text",
        "bad_json",
        "bad_json",
        "missing_column",
        "undecodable",
        "bad_json",
    ]
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,b,c\na.png,"open')
    reasons = [row.reason for row in read_table(tmp_path / "metadata.csv", "")]
    assert reasons == ["bad_csv", "bad_csv"]


def test_recordings_come_with_transcripts(tmp_path):
    samples = np.sin(np.arange(800) / 9).astype(np.float32)
    lay(tmp_path, "a.wav", "b.wav", data=encode_wav(samples, 8_000))
    lay(tmp_path, "cut.wav", data=encode_wav(samples, 8_000)[:900])
    write_table(tmp_path / "metadata.csv", [{"file_name": "a.wav", "transcription": "hello"}])
    (tmp_path / "b.txt").write_text("good bye")
    folder = reader(AudioFolderSource(type="audiofolder", path="elsewhere"), "speech", tmp_path)
    assert known(folder) == {
        "a.wav": ("hello", None, "a.wav"),
        "b.wav": ("good bye", None, "b.wav"),
        "cut.wav": "corrupt_audio",
    }


@pytest.mark.skipif(not DIGITS.is_dir(), reason="the spoken digits are not here")
def test_real_recordings_in_a_confined_child(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for path in sorted(DIGITS.glob("*_1?.wav")):
        shutil.copy(path, root)
    source = AudioFolderSource(type="audiofolder", path=str(root), pattern=DIGIT)
    counts, out = ingested(source, tmp_path, "out")
    rows = list(read_rows(out / "rows"))
    assert counts["read"] == counts["kept"] == len(rows) == 200
    assert Counter(row.label for row in rows) == {str(digit): 20 for digit in range(10)}
    assert {row.origin["group"] for row in rows} == {"george", "jackson"}
