"""Layouts, column mappings, weights, augmentation, media and archives: the counts add up whatever is mixed."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.e2e.sources import local
from tests.e2e.sources.pipeline import check
from tests.e2e.sources.prose import english
from tests.e2e.sources.remote import png


def shared(name: str) -> Path:
    """A file of real data. Skips where it is absent."""
    beside = Path(__file__).parents[2] / ".." / "shared" / "data"
    path = Path(os.environ.get("FLYWHEEL_TEST_DATA") or beside) / name
    if not path.exists():
        pytest.skip(f"no real data: set FLYWHEEL_TEST_DATA to a directory with {name}")
    return path.resolve()


def files(path: Path, **more: Any) -> dict[str, Any]:
    return {"type": "files", "path": str(path), **more}


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_standard_row_and_layout_in_one_dataset(tmp_path: Path) -> None:
    ask, say, more = (english(name, 3) for name in ("ask", "say", "more"))
    turns = [{"from": "human", "value": ask[0]}, {"from": "gpt", "value": say[0]}]
    rows = [
        {"text": more[0]},
        {"prompt": ask[1], "completion": say[1]},
        {"messages": [{"role": "user", "content": ask[2]}, {"role": "assistant", "content": say[2]}]},
        {"conversations": turns, "system": "Be brief."},
        {"instruction": "Go on.", "input": more[1], "output": english("end", 1)[0]},
        {"prompt": english("why", 1)[0], "chosen": english("good", 1)[0], "rejected": english("bad", 1)[0]},
        {"prompt": "no answer", "chosen": "yes", "rejected": None},
        {"conversations": [{"from": "narrator", "value": "who?"}]},
        {"body": more[2]},
        {"title": "nothing that is known", "year": 1},
    ]
    done = check(tmp_path, [files(lines(tmp_path / "all.jsonl", rows), name="all")])
    assert (done.report["read"], done.report["kept"], done.report["dropped"]) == (10, 7, {"empty": 1})
    assert sorted(done.report["quarantined"].values()) == [1, 1]
    by_place = {row.origin["path"]: row for row in done.kept}
    assert by_place["all.jsonl:4"].messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ask[0]},
        {"role": "assistant", "content": say[0]},
    ]
    assert by_place["all.jsonl:5"].prompt == f"Go on.\n\n{more[1]}"
    assert by_place["all.jsonl:6"].chosen == english("good", 1)[0]
    assert by_place["all.jsonl:9"].text == more[2]


def test_columns_say_what_to_learn_from_and_what_belongs_together(tmp_path: Path) -> None:
    texts = english("thread", 12)
    rows = [{"q": text, "a": f"Answer {n}.", "mood": n % 2, "thread": n // 3} for n, text in enumerate(texts)]
    columns = {"prompt": "q", "completion": "a", "label": "mood", "group": "thread"}
    done = check(tmp_path, [files(lines(tmp_path / "faq.jsonl", [*rows, {"q": "alone"}]), columns=columns)])
    assert done.report["quarantined"] == {"missing_column": 1}
    assert {row.label for row in done.kept} == {"0", "1"}
    sides = [{row.origin["group"] for row in done.rows[side]} for side in ("train", "heldout")]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {"0", "1", "2", "3"}


def test_weights_thin_one_source_and_repeat_another(tmp_path: Path) -> None:
    sources = [
        files(lines(tmp_path / f"{name}.jsonl", [{"text": t} for t in english(name, 80)]), name=name, weight=weight)
        for name, weight in (("half", 0.5), ("twice", 2.0), ("plain", 1.0))
    ]
    done = check(tmp_path, sources)
    count = done.report["sources"]
    assert 20 <= count["half"]["dropped"].pop("weight") <= 60
    assert [c["dropped"] for c in count.values()] == [{}, {}, {}]
    copies = [row for row in done.rows["train"] if "augmented" in row.origin]
    once = [row for row in done.rows["train"] if row not in copies]
    assert {row.origin["source"] for row in copies} == {"twice"}
    assert {row.origin["parent"] for row in copies} == {r.id for r in once if r.origin["source"] == "twice"}
    assert done.report["augmented"] == len(copies)
    assert done.report["kept"] == len(once) + len(done.rows["heldout"])
    assert len({row.id for rows in done.rows.values() for row in rows}) == sum(map(len, done.rows.values()))


def test_augmented_copies_are_counted_apart_and_stay_in_training(tmp_path: Path) -> None:
    source = files(lines(tmp_path / "a.jsonl", [{"text": t} for t in english("augmented", 20)]))
    swap, delete = {"random_swap": {"copies": 2}}, {"random_deletion": {"probability": 0.1}}
    done = check(tmp_path, [source], augment=[swap, delete])
    once = [row for row in done.rows["train"] if "augmented" not in row.origin]
    assert (done.report["read"], done.report["kept"]) == (20, 20)
    assert done.report["augmented"] == 3 * len(once)
    assert done.report["rows"]["train"] == 4 * len(once)
    assert not [row for row in done.rows["heldout"] if "augmented" in row.origin]


def test_identifiers_are_masked_and_counted(tmp_path: Path) -> None:
    rows = [{"text": text} for text in (*local.PRIVATE, *english("public", 6))]
    suite = [{"expect_column_values_to_be_in_set": {"column": "has_pii", "value_set": [False]}}]
    source = files(lines(tmp_path / "a.jsonl", rows))
    done = check(tmp_path, [source], process=["mask_pii"], validate={"expectations": suite})
    assert (done.report["kept"], done.report["quarantined"], done.report["expectations"]) == (8, {}, 1)
    by_place = {row.origin["path"]: row for row in done.kept}
    assert "write to <EMAIL> on a weekday" in str(by_place["a.jsonl:1"].text)
    assert by_place["a.jsonl:2"].origin["pii"] == {"phone": 1}


def test_pictures_recordings_and_texts_in_one_dataset(tmp_path: Path) -> None:
    pictures, sounds = tmp_path / "pictures", tmp_path / "sounds"
    for label in ("dark", "light"):
        (pictures / label).mkdir(parents=True)
        for n in range(4):
            (pictures / label / f"{n}.png").write_bytes(png(20 * n + (120 if label == "light" else 0)))
    (pictures / "dark" / "torn.png").write_bytes(png(7)[:30])
    sounds.mkdir()
    for n, text in enumerate(english("spoken", 4)):
        wave = np.sin(np.arange(1_600) * (0.05 + 0.01 * n)).astype(np.float32)
        soundfile.write(sounds / f"{n}_ann.wav", wave, 8_000)
        (sounds / f"{n}_ann.txt").write_text(text)
    (sounds / "unmatched.wav").write_bytes((sounds / "0_ann.wav").read_bytes())
    (sounds / "torn.txt").write_text("of no recording")
    sources = [
        {"type": "imagefolder", "path": str(pictures), "name": "pictures"},
        {"type": "audiofolder", "path": str(sounds), "name": "sounds", "pattern": r"(?P<label>\d)_(?P<group>[a-z]+)"},
        files(lines(tmp_path / "t.jsonl", [{"text": t} for t in english("beside", 6)]), name="texts"),
    ]
    done = check(tmp_path, sources, process=["exact_dedup", "near_dedup"], split={"heldout": 0.25, "by": "id"})
    assert done.report["quarantined"] == {"corrupt_image": 1, "no_match": 1}
    assert done.report["dropped"] == {"unpaired": 1}
    assert Counter(row.label for row in done.of("pictures")) == {"dark": 4, "light": 4}
    assert {row.origin["group"] for row in done.of("sounds")} == {"ann"}
    assert all(row.audio and row.text for row in done.of("sounds"))
    assert done.report["read"] == 9 + 6 + 6


def test_archives_of_documents_are_read_member_by_member(tmp_path: Path) -> None:
    texts, docs = english("archived", 6), tmp_path / "docs"
    docs.mkdir()
    local.letters(tmp_path / "letters")
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("deep.txt", texts[0])
    with zipfile.ZipFile(docs / "a.zip", "w") as archive:
        archive.writestr("one.md", texts[1])
        archive.writestr("two.csv", f'text\n"{texts[2]}"\n""\n')
        archive.writestr("three.pdf", local.pdf([texts[3]]))
        archive.writestr("inner.zip", inner.getvalue())
        archive.write(tmp_path / "letters" / "letter0.docx", "letter.docx")
        archive.writestr("program.exe", "MZ")
    with tarfile.open(docs / "b.tar.gz", "w:gz") as tar:
        (tmp_path / "four.txt").write_text(texts[4])
        tar.add(tmp_path / "four.txt", "x/four.txt")
        link = tarfile.TarInfo("passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    done = check(tmp_path, [files(docs, name="docs")])
    assert (done.report["read"], done.report["kept"]) == (9, 6)
    assert done.report["dropped"] == {"empty": 1}
    assert done.report["quarantined"] == {"unknown_format": 1, "unsafe_member": 1}
    assert {row.origin["path"] for row in done.kept} == {
        *("a.zip:one.md", "a.zip:two.csv:2", "a.zip:three.pdf", "a.zip:inner.zip/deep.txt", "a.zip:letter.docx"),
        "b.tar.gz:x/four.txt",
    }


@pytest.mark.parametrize(
    ("name", "read", "column"), [("alpaca.json", 999, "completion"), ("preferences.json", 300, "chosen")]
)
def test_real_layouts(tmp_path: Path, name: str, read: int, column: str) -> None:
    done = check(tmp_path, [files(shared(name), license="CC-BY-NC-4.0")], process=["exact_dedup"])
    assert done.report["read"] == read
    assert done.report["quarantined"] == {}
    assert done.report["kept"] > 0.9 * read
    assert all(getattr(row, column) and row.origin["license"] == "CC-BY-NC-4.0" for row in done.kept)


def test_real_recordings(tmp_path: Path) -> None:
    pattern = r"(?P<label>\d)_(?P<group>[a-z]+)_\d+"
    source = {"type": "audiofolder", "path": str(shared("spoken-digits")), "pattern": pattern}
    done = check(tmp_path, [source], process=["exact_dedup"])
    assert (done.report["read"], done.report["kept"]) == (500, 500)
    assert Counter(row.label for row in done.kept) == dict.fromkeys("0123456789", 50)
    assert len({row.origin["group"] for row in done.rows["train"]}) == 1
