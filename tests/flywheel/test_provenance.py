import json
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flywheel import artifact, forgetting, provenance
from flywheel.errors import SourceError
from flywheel.forgetting import EVALUATED, TRAINED, Holding
from flywheel.record import Record, read_rows
from flywheel.sources import snapshots, tombstones
from flywheel.sources.base import named_sources
from flywheel.subject import Subject
from tests.stores import JANE, NOTES, PROCESS, Data, recipe, run, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Kept, masked, dropped, quarantined and unreadable rows, and copies for training."""
    root = tmp_path_factory.mktemp("data")
    mails = [f"write to {JANE} about matter number {n}, which is urgent" for n in range(8)]
    source = write(root / "in", [*NOTES, *mails, "short", "please reject this row, it is bad", NOTES[0]])
    with (root / "in" / "notes.jsonl").open("a") as file:
        file.write(json.dumps({JANE: "a column", "and": "another"}) + "\n")
    augment = [{"random_swap": {"copies": 1, "probability": 0.2}}]
    validate = {"max_quarantined": 0.5}
    return run(root / "store", recipe(source, process=PROCESS, augment=augment, validate=validate))


def find(data: Data, subject: str) -> Holding:
    return forgetting.holding(data.store, Subject(subject))


def ids(data: Data, wanted: str) -> list[str]:
    """Ids of the rows that said something when they were read."""
    rows = artifact.location(data.store, "ingest", data.lineage["ingest"]) / "rows"
    return [row.id for row in read_rows(rows) if wanted in (row.text or "")]


# ---------------------------------------------------------------- why


def test_a_version_is_made_from_its_sources(data: Data) -> None:
    found = provenance.dataset(data.store, data.lineage)
    (source,) = found["sources"]
    assert (source["name"], source["type"], source["license"], source["files"]) == ("in", "files", "MIT", 1)
    assert source["read"] == found["read"] == 36
    assert source["rows"]["train"] == found["rows"]["train"]
    assert found["left_out"]["prepare"] == {"too_short": 1, "exact_duplicate": 1}
    assert Path(found["files"]["train"]).is_file()


def test_a_row_is_found_with_its_copies(data: Data) -> None:
    train = artifact.location(data.store, "validate", data.lineage["validate"]) / "train.parquet"
    copy = next(row for row in read_rows(train) if "parent" in row.origin)
    found = provenance.row(data.store, data.lineage, copy.origin["parent"])
    assert [(f.id, f.where, f.parent) for f in found] == [
        (copy.origin["parent"], "train", ""),
        (copy.id, "train", copy.origin["parent"]),
    ]
    assert found[0].path == found[1].path == copy.origin["path"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("short", "left out by prepare: too_short"),
        ("reject this", "quarantined: expect_no_reject"),
    ],
)
def test_a_row_that_was_left_out_comes_with_the_reason(data: Data, text: str, where: str) -> None:
    (identity,) = ids(data, text)
    assert {f.where for f in provenance.row(data.store, data.lineage, identity)} == {where}


def test_a_row_that_never_was_is_not_found(data: Data) -> None:
    assert provenance.row(data.store, data.lineage, "0" * 16) == []


def test_a_text_is_found_word_for_word_whatever_its_case_and_line_breaks(data: Data) -> None:
    found = provenance.text(data.store, data.lineage, "Note Number 7\nis about").rows
    assert {f.path for f in found} == {"notes.jsonl:8"}
    assert "note number 7 is about" in found[0].excerpt
    assert provenance.text(data.store, data.lineage, "note number 7 is under").rows == []


def test_a_text_that_was_left_out_is_found_where_it_was_read(data: Data) -> None:
    (found,) = provenance.text(data.store, data.lineage, "short").rows
    assert found.where == "left out by prepare: too_short"


def test_a_text_that_was_changed_is_found_where_it_was_read(data: Data) -> None:
    found = provenance.text(data.store, data.lineage, f"write to {JANE} about matter number 2").rows
    assert [f.where for f in found if not f.parent] in (
        [f"{side}, where preparation changed it"] for side in ("train", "heldout")
    )


def test_a_common_word_gives_a_few_rows(data: Data) -> None:
    assert len(provenance.text(data.store, data.lineage, "number").rows) == provenance.MOST


def test_the_nearest_rows_come_with_their_similarity(data: Data) -> None:
    wanted = NOTES[5].replace("weather", "harvest")
    said = provenance.text(data.store, data.lineage, wanted)
    first, *others = said.nearest
    assert said.rows == []
    assert first.path == "notes.jsonl:6"
    assert "note number 5 is about" in first.excerpt
    assert 0 < first.similarity < 1
    assert all(0 < f.similarity <= first.similarity for f in others)
    for nothing in ("entirely different words altogether", "?!", "zzzz"):
        assert provenance.text(data.store, data.lineage, nothing) == provenance.Said([], [])


def test_nearest_rows_are_found_where_words_are_not_spaced(tmp_path: Path) -> None:
    made = run(tmp_path / "store", recipe(write(tmp_path / "in", [*NOTES, "今日は天気がいいから散歩しましょう"])))
    said = provenance.text(made.store, made.lineage, "明日は天気がいいから散歩しました")
    assert said.rows == []
    assert [f.path for f in said.nearest] == ["notes.jsonl:25"]
    assert 0.5 < said.nearest[0].similarity < 1


# ---------------------------------------------------------------- a subject


@pytest.mark.parametrize(
    "text",
    [
        "Ask José Strauß.",
        "ASK JOSÉ STRAUSS.",
        unicodedata.normalize("NFD", "ask josé strauß"),
        "Jos\u00adé\n  Strauß",
        "José\u00a0Stra\u200buß",
        json.dumps({"name": "José Strauß"}),
        json.dumps({"name": "JOSÉ\nSTRAUẞ"}),
    ],
)
def test_a_subject_is_found_however_it_is_spelled(text: str, tmp_path: Path) -> None:
    import pyarrow as pa

    subject = Subject("josé strauß")
    assert subject.in_text(text)
    assert subject.mask(pa.array(["before", text])).to_pylist() == [False, True]
    (tmp_path / "a.txt").write_text("x" * 3_000_000 + text)
    assert subject.in_file(tmp_path / "a.txt")


@pytest.mark.parametrize("text", ["Jose Strauß", "José Straus", "JoséStrauß", "José and Strauß"])
def test_others_are_not_found(text: str) -> None:
    assert not Subject("josé strauß").in_text(text)


def test_a_subject_is_words_of_its_own() -> None:
    subject = Subject("Main Street 4")
    assert subject.in_text("Main Street 45, then main street 4.")
    assert not subject.in_text("Main Street 45")
    assert not Subject("Ann").in_text("the annual Joann")
    assert Subject("@example.org").in_text("jane@example.org")


@pytest.mark.parametrize("nothing", ["", "  \n", "x", "\u200b\u200b", "a\ud800b"])
def test_a_subject_must_say_something(nothing: str) -> None:
    with pytest.raises(SourceError, match="at least two characters"):
        Subject(nothing)


def test_what_we_note_about_a_row_is_not_what_it_says() -> None:
    row = Record("1", text="a", origin={"license": "MIT", "source": "mit", "path": "notes.csv:1", "title": "Zoë's"})
    assert not Subject("mit").in_row(row)
    assert Subject("notes").in_row(row)
    assert Subject("ZOË").in_row(row)


def test_masked_rows_and_their_copies_hold_the_subject(data: Data) -> None:
    found = find(data, JANE.upper())
    assert {row.id for row in found.rows if row.where == "read"} == {*ids(data, JANE)}
    (unread,) = (row for row in found.rows if row.where != "read")
    assert unread.where.startswith("left out by ingest: ")
    ingest, prepare, validate = sorted(found.datasets, key=lambda held: held.artifact.step)
    assert ingest.rows == {"rows": 8}
    assert ingest.left == 1
    assert prepare.rows == validate.rows
    assert validate.number(EVALUATED) + validate.number(TRAINED) > 8
    assert found.caches
    assert not found.unread


def test_nothing_holds_a_stranger(data: Data) -> None:
    assert find(data, "nobody at all") == Holding()


def test_pairs_made_from_a_row_hold_its_subject(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(6):
        owner = "# written by Jane Doe\n" if n == 2 else ""
        body = (
            f'def f{n}(value):\n    """Return the value times {n} plus one hundred."""\n    return value * {n} + 100\n'
        )
        (tmp_path / "in" / f"m{n}.py").write_text(owner + body)
    source = {"type": "code", "path": str(tmp_path / "in")}
    made = run(tmp_path / "store", recipe(source, finetune={"process": ["docstring_pairs"]}))
    found = find(made, "jane doe")
    validate = next(held for held in found.datasets if held.artifact.step == "validate")
    assert sorted(validate.rows) in (["finetune_train", "train"], ["finetune_heldout", "heldout"])


def test_what_was_made_from_the_rows_is_listed(tmp_path: Path) -> None:
    made = run(tmp_path / "store", recipe(write(tmp_path / "in", [*NOTES, "this is what Jane Doe said to all of us"])))
    marks = {"train": {"parent:validate": made.lineage["validate"]}, "export": {"parent:train": "train0"}}
    for step, parents in {**marks, "other": {"parent:validate": "elsewhere"}}.items():
        with artifact.locked(made.store, step, f"{step}0") as building:
            target = artifact.location(made.store, step, f"{step}0")
            artifact.commit(building, target=target, recipe="tiny", ingredients=parents, summary={})
    assert [a.step for a in find(made, "Jane Doe").derived] == ["train", "export"]


def test_a_snapshot_is_known_by_the_rows_of_its_packed_files(tmp_path: Path) -> None:
    import openpyxl

    source = {"type": "files", "path": "s3://bucket/docs", "license": "MIT"}

    def fetch(into: Path, _: Path | None) -> dict[str, Any]:
        book = openpyxl.Workbook()
        for line in ["text", *NOTES, "Jane Doe asked about the weather in every week"]:
            book.active.append([line])
        book.save(into / "notes.xlsx")
        return {}

    wanted = recipe(source)
    (named,) = named_sources(wanted.data.sources, {})
    taken = snapshots.take(tmp_path / "store", named, fetch)
    made = run(tmp_path / "store", wanted)
    assert [path.name for path in find(made, "jane doe").snapshots] == [taken["digest"]]
    assert find(made, "john doe").snapshots == []


def test_plain_files_elsewhere_are_looked_into(data: Data, tmp_path: Path) -> None:
    (tmp_path / "feedback").mkdir()
    (tmp_path / "feedback" / "tiny.jsonl").write_text(json.dumps({"comment": "from Zoë"}) + "\n")
    (tmp_path / "feedback" / "tokenizer.json").write_text('["from", "zoë"]')
    found = forgetting.holding(data.store, Subject("zoë"), [tmp_path / "feedback", tmp_path / "missing"])
    assert found.files == [tmp_path / "feedback" / "tiny.jsonl"]


# ---------------------------------------------------------------- forgetting


@pytest.fixture
def copied(data: Data, tmp_path: Path) -> Data:
    """A store of one's own."""
    shutil.copytree(data.store, tmp_path / "store")
    return replace(data, store=tmp_path / "store")


def test_forgetting_buries_the_rows_and_clears_the_caches(copied: Data) -> None:
    found = find(copied, JANE)
    assert forgetting.forget(copied.store, found)
    assert {row.id for row in found.rows} <= tombstones.load(copied.store).ids
    left = [row for file in (copied.store / ".shards").rglob("*.parquet") for row in read_rows(file)]
    assert not {row.origin.get("parent", row.id) for row in left} & tombstones.load(copied.store).ids
    again = find(copied, JANE)
    assert again.caches == []
    assert [row.id for row in again.rows] == [row.id for row in found.rows]
    written = (copied.store / tombstones.FILE).read_bytes()
    assert not forgetting.forget(copied.store, again)
    assert (copied.store / tombstones.FILE).read_bytes() == written


def test_no_later_run_says_the_subject_anywhere(tmp_path: Path) -> None:
    lines = [*NOTES, "what <b>Jane</b> <i>Doe</i> said about the weather", "Jane Doe, again, and the weather"]
    source = write(tmp_path / "in", lines)
    with (tmp_path / "in" / "notes.jsonl").open("a") as file:
        file.write(json.dumps({"Jane Doe": "a column", "and": "another"}) + "\n")
    first = run(tmp_path / "store", recipe(source, process=PROCESS))
    found = find(first, "Jane Doe")
    assert {row.path for row in found.rows} == {"notes.jsonl:25", "notes.jsonl:26", "notes.jsonl:27"}
    forgetting.forget(first.store, found)
    for step in provenance.DATASETS:
        shutil.rmtree(first.store / step)

    second = run(tmp_path / "store", recipe(source, process=PROCESS))
    counts = second.summaries["ingest"]
    assert (counts["read"], counts["kept"], counts["dropped"]) == (27, 24, {"forgotten": 3})
    assert counts["quarantined"] == {}
    assert find(second, "Jane Doe") == Holding()
    assert [f.where for f in provenance.row(second.store, second.lineage, found.rows[0].id)] == [
        "left out by ingest: forgotten"
    ]


def test_pictures_of_a_subject_stay_out_when_their_folder_is_renamed(tmp_path: Path) -> None:
    from PIL import Image

    for n in range(8):
        folder = tmp_path / "in" / ("jane doe" if n < 2 else "others")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (n * 20, 0, 0)).save(folder / f"{n}.png")
    wanted = recipe({"type": "imagefolder", "path": str(tmp_path / "in")})
    first = run(tmp_path / "store", wanted)
    forgetting.forget(first.store, find(first, "Jane Doe"))
    (tmp_path / "in" / "jane doe").rename(tmp_path / "in" / "someone")
    counts = run(tmp_path / "store", wanted).summaries["ingest"]
    assert (counts["read"], counts["kept"], counts["dropped"]) == (8, 6, {"forgotten": 2})


def test_what_a_crashed_run_left_goes_and_what_a_running_one_builds_stays(copied: Data) -> None:
    crashed = copied.store / "prepare" / ".0000.out"
    crashed.mkdir()
    (crashed.parent / ".0000.lock").touch()
    with artifact.locked(copied.store, "validate", "1111") as building:
        found = find(copied, JANE)
        assert found.under_way == ["validate/1111"]
        forgetting.forget(copied.store, found)
        assert building.out.is_dir()
    assert not crashed.exists()


def test_a_damaged_file_is_told_of(copied: Data) -> None:
    file = artifact.location(copied.store, "validate", copied.lineage["validate"]) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    broken = artifact.location(copied.store, "ingest", copied.lineage["ingest"])
    (broken / artifact.FILE).write_text("{}")
    assert find(copied, JANE).unread == [broken, file]
