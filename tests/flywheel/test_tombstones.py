import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flywheel.record import Dropped, Quarantined, Record
from flywheel.sources import tombstones
from flywheel.sources.tombstones import Tombstones, content_mark, folded, text_mark
from tests.stores import recipe, run


def row(text: str, number: int = 0, **more: object) -> Record:
    return Record(f"{number:016x}", text=text, origin={"source": "s", "path": f"a.csv:{number}"}, **more)  # type: ignore[arg-type]


def of(text: str) -> Tombstones:
    return Tombstones(frozenset({"f" * 16}), frozenset({text_mark(text)}))


def test_no_tombstones_hold_nothing(tmp_path: Path) -> None:
    assert tombstones.load(tmp_path) == tombstones.NONE
    assert tombstones.NONE.drop(row("hello")) == row("hello")
    assert tombstones.NONE.digest == ""


def test_a_forgotten_row_is_dropped_without_a_word_of_where_it_stood() -> None:
    forgotten = Tombstones(frozenset({row("", 7).id}))
    assert forgotten.drop(row("anything", 7)) == Dropped(row("", 7).id, "forgotten", "", "s", "")
    assert forgotten.drop(row("anything", 8)) == row("anything", 8)


@pytest.mark.parametrize(
    "spelled",
    [
        "Zoë  lives here",
        "ZOË LIVES\nHERE",
        "Zoe\u0308 lives here",
        "Zo\u00adë\u00a0lives here\u200b",
    ],
)
def test_a_text_stays_out_however_it_is_spelled(spelled: str) -> None:
    assert of("Zoë lives here").hold(row(spelled, 3))


@pytest.mark.parametrize("other", ["Zoe lives here", "Zoë lives there", "zoëliveshere"])
def test_other_texts_stay(other: str) -> None:
    assert not of("Zoë lives here").hold(row(other, 3))


def test_a_text_stays_out_in_another_column() -> None:
    forgotten = of("Who is Zoë?")
    assert forgotten.hold(Record("1", prompt="Who is Zoë?", completion="A friend."))
    assert forgotten.hold(Record("1", messages=[{"role": "user", "content": "who is zoë?"}]))
    assert forgotten.hold(Record("1", image=b"png", label="Who is Zoë?"))


def test_what_says_nothing_is_known_by_its_bytes() -> None:
    picture = Record("1", image=b"\x89PNG", origin={"path": "zoe/1.png"})
    forgotten = Tombstones(frozenset({"2"}), frozenset(), frozenset({content_mark(picture)}))
    assert forgotten.hold(picture.with_fields(id="3", origin={"path": "other/9.png"}))
    assert not forgotten.hold(Record("1", image=b"\x89PNG2"))


def test_a_line_about_a_row_that_cannot_be_read_stays_out_too() -> None:
    bad = Quarantined("1", "bad_json", "a.jsonl:3", "s", '{"name": "Zoë"')
    assert of('{"name": "Zoë"').drop(bad) == Dropped("1", "forgotten", source="s")
    assert of("another").drop(bad) == bad


def test_the_file_holds_hashes_only(tmp_path: Path) -> None:
    tombstones.add(tmp_path, of("Zoë lives here"))
    written = json.loads((tmp_path / tombstones.FILE).read_text())
    assert set(written) == {"ids", "texts", "contents"}
    assert all(int(mark, 16) >= 0 for marks in written.values() for mark in marks)
    assert tombstones.load(tmp_path) == of("zoë lives here")


def test_adding_the_same_again_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    tombstones.add(tmp_path, of("one"))
    before = (tmp_path / tombstones.FILE).stat()
    tombstones.add(tmp_path, of("one"))
    assert (tmp_path / tombstones.FILE).stat().st_ino == before.st_ino


def test_nothing_is_lost_when_many_add_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: tombstones.add(tmp_path, Tombstones(frozenset({f"{n}"}))), range(40)))
    assert tombstones.load(tmp_path).ids == {f"{n}" for n in range(40)}


def test_folding_twice_is_folding_once() -> None:
    for text in ("İstanbul", "Straße", "ﬁne", "a\u0301\u200d b", "Σίσυφος", "\ud800"):
        assert folded(folded(text)) == folded(text)


def write(root: Path, lines: list[str], name: str = "notes.jsonl") -> None:
    root.mkdir(exist_ok=True)
    (root / name).write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))


LINES = [f"note number {n} about the weather" for n in range(12)]


@pytest.mark.parametrize("again", ["as it was", "moved", "renamed", "respelled"])
def test_a_run_after_it_reads_all_rows_but_that_one(tmp_path: Path, again: str) -> None:
    write(tmp_path / "in", LINES)
    source = {"type": "files", "path": str(tmp_path / "in")}
    first = run(tmp_path / "store", recipe(source))
    tombstones.add(tmp_path / "store", of(LINES[3]))
    if again == "moved":
        write(tmp_path / "in", [*LINES[6:], *LINES[:6]])
    elif again == "renamed":
        (tmp_path / "in" / "notes.jsonl").rename(tmp_path / "in" / "other.jsonl")
    elif again == "respelled":
        write(tmp_path / "in", [line.upper().replace(" ", "\n") for line in LINES])

    second = run(tmp_path / "store", recipe(source))
    assert second.lineage["ingest"] != first.lineage["ingest"]
    kept = {folded(text) for split in ("train", "heldout") for text in second.rows(split)}
    assert kept == set(LINES) - {LINES[3]}
    counts = second.summaries["ingest"]
    assert (counts["read"], counts["kept"], counts["dropped"]) == (12, 11, {"forgotten": 1})


def test_rows_come_back_when_the_tombstones_are_taken_away(tmp_path: Path) -> None:
    write(tmp_path / "in", LINES)
    source = {"type": "files", "path": str(tmp_path / "in")}
    first = run(tmp_path / "store", recipe(source))
    tombstones.add(tmp_path / "store", of(LINES[3]))
    assert run(tmp_path / "store", recipe(source)).summaries["ingest"]["kept"] == 11
    (tmp_path / "store" / tombstones.FILE).unlink()
    shutil.rmtree(tmp_path / "store" / "ingest")
    back = run(tmp_path / "store", recipe(source))
    assert back.lineage == first.lineage
    assert back.summaries["ingest"]["kept"] == 12


def test_shards_without_such_a_row_are_looked_at_once(tmp_path: Path) -> None:
    write(tmp_path / "in", LINES)
    source = {"type": "files", "path": str(tmp_path / "in")}
    run(tmp_path / "store", recipe(source))
    marks = [tombstones.add(tmp_path / "store", of("a text that nobody wrote")).digest]
    shard = next(
        p for p in (tmp_path / "store" / ".shards").iterdir() if '"forgotten"' in (p / "shard.json").read_text()
    )
    made = (shard / "000000.parquet").stat().st_ino
    run(tmp_path / "store", recipe(source))
    assert json.loads((shard / "shard.json").read_text())["forgotten"] == marks[0]
    assert (shard / "000000.parquet").stat().st_ino == made
