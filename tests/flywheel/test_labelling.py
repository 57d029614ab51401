from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flywheel import labelling
from flywheel.errors import SourceError
from flywheel.labelling import Label, agreement, choose, export, fleiss_kappa, majority, read_labels
from flywheel.record import Record, write_rows

FLEISS_1971 = """
0 0 0 6 0, 0 3 0 0 3, 0 1 4 0 1, 0 0 0 0 6, 0 3 0 3 0, 2 0 4 0 0, 0 0 4 0 2, 2 0 3 1 0, 2 0 0 4 0, 0 0 0 0 6,
1 0 0 5 0, 1 1 0 4 0, 0 3 3 0 0, 1 0 0 5 0, 0 2 0 3 1, 0 0 5 0 1, 3 0 0 1 2, 5 1 0 0 0, 0 2 0 4 0, 1 0 2 0 3,
0 0 0 0 6, 0 1 0 5 0, 0 2 0 1 3, 2 0 0 4 0, 1 0 0 4 1, 0 5 0 1 0, 4 0 0 0 2, 0 2 0 4 0, 1 0 5 0 0, 0 0 0 0 6
"""
"""Table 1: 30 patients, each diagnosed by six psychiatrists as one of five categories."""


def records(count: int = 20) -> list[Record]:
    return [
        Record(f"r{n}", text=f"text {n}", label="ab"[n % 4 == 0], origin={"source": "s", "path": f"f:{n}"})
        for n in range(count)
    ]


def batch(directory: Path, name: str, rows: list[Record] | None = None, **options: object) -> Path:
    write_rows(directory / "rows.parquet", records() if rows is None else rows)
    export(directory / "rows.parquet", directory / name, 8, **options)  # type: ignore[arg-type]
    return directory / name


def fill(path: Path, annotator: str, label: str) -> None:
    """What a person does in a spreadsheet."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), delimiter=";")
        writer.writeheader()
        writer.writerows({**line, "annotator": annotator, "label": label} for line in lines)


def test_augmented_copies_are_not_labelled(tmp_path: Path) -> None:
    copy = Record("copy", text="text 0 once more", origin={"augmented": "random_swap", "parent": "r0"})
    ids = [label["id"] for label in map(json.loads, batch(tmp_path, "b.jsonl", [*records(3), copy]).open())]
    assert sorted(ids) == ["r0", "r1", "r2"]


def test_published_value_of_fleiss_kappa() -> None:
    counts = [[int(n) for n in item.split()] for item in FLEISS_1971.split(",")]
    assert (len(counts), {sum(item) for item in counts}) == (30, {6})
    kappa = fleiss_kappa([{str(j): n for j, n in enumerate(item)} for item in counts])
    assert kappa == pytest.approx(0.430, abs=5e-4)


def test_cohen_is_that_of_two_annotators_and_fleiss_needs_equal_numbers() -> None:
    said = {"ann": "ppnnppnn", "bob": "ppnnnpnp", "eve": "pn"}
    labels = [Label(str(n), "", who, what) for who, whole in said.items() for n, what in enumerate(whole)]
    found = agreement(labels)
    assert found.annotators == ("ann", "bob", "eve")
    assert found.items == 8
    assert found.cohen["ann / bob"] == pytest.approx(0.5)
    assert found.fleiss_items == 6
    assert found.observed == pytest.approx((4 + 1 + 1 / 3) / 8)


def test_agreement_of_one_label_is_undefined() -> None:
    found = agreement([Label("1", "", who, "x") for who in "ab"])
    assert (found.observed, found.cohen, found.fleiss) == (1.0, {"a / b": None}, None)
    assert json.loads(json.dumps(found.as_dict()))["items"] == 1
    assert agreement([Label("1", "", "a", "x")]).observed is None


@given(st.lists(st.lists(st.sampled_from("xyz"), min_size=3, max_size=3), min_size=1, max_size=20))
def test_fleiss_stays_in_range(items: list[list[str]]) -> None:
    kappa = fleiss_kappa([{label: item.count(label) for label in item} for item in items])
    assert kappa is None or -1 <= kappa <= 1


def test_majority_and_ties() -> None:
    assert majority("aab") == "a"
    assert majority("ab") is None
    assert majority("") is None


def test_a_choice_depends_on_the_seed_alone() -> None:
    rows = records()
    first = choose(rows, 5, "random", 0)
    assert first == choose(rows[::-1], 5, "random", 0)
    assert len(first) == 5
    assert first != choose(rows, 5, "random", 1)


def test_stratified_takes_as_many_of_each_label() -> None:
    labels = [row.label for row in choose(records(), 8, "stratified", 0)]
    assert (labels.count("a"), labels.count("b")) == (4, 4)
    labels = [row.label for row in choose(records(), 14, "stratified", 0)]
    assert (labels.count("a"), labels.count("b")) == (9, 5)


def test_uncertain_takes_what_rules_left_open() -> None:
    votes = [{"x": 3}, {"x": 2, "y": 1}, {"x": 5, "y": 1}, {}]
    rows = [Record(str(n), text="t", origin={"weak_labels": {"votes": vote}}) for n, vote in enumerate(votes)]
    assert [row.id for row in choose(rows, 4, "uncertain", 0)] == ["3", "1", "2", "0"]


@pytest.mark.parametrize("name", ["batch.csv", "batch.jsonl", "batch.json"])
def test_equal_inputs_give_equal_batches(tmp_path: Path, name: str) -> None:
    first = batch(tmp_path, name).read_bytes()
    assert batch(tmp_path, name).read_bytes() == first
    with pytest.raises(SourceError, match="no row with"):
        read_labels(tmp_path / name)


def test_a_spreadsheet_comes_back(tmp_path: Path) -> None:
    for annotator, label in (("ann", "good"), ("bob", "bad")):
        fill(batch(tmp_path, f"{annotator}.csv"), annotator, label)
    (tmp_path / "rows.parquet").unlink()
    labels = read_labels(tmp_path)
    assert len(labels) == 16
    assert {(label.annotator, label.label) for label in labels} == {("ann", "good"), ("bob", "bad")}
    assert labels[0].digest == labelling.digest(next(row for row in records() if row.id == labels[0].id))


def test_a_spreadsheet_runs_no_formula_and_cuts_no_id(tmp_path: Path) -> None:
    rows = [Record("r1", text="=HYPERLINK(1)"), Record("r2", text="x" * 40_000), Record("r3", text='a,"b"\nc')]
    with batch(tmp_path, "b.csv", rows).open(encoding="utf-8-sig", newline="") as file:
        cells = {line["id"]: line["text"] for line in csv.DictReader(file)}
    assert cells["r1"] == "'=HYPERLINK(1)"
    assert len(cells["r2"]) == labelling.MAX_CELL
    assert cells["r3"] == 'a,"b"\nc'


def test_label_studio_takes_tasks_and_gives_annotations(tmp_path: Path) -> None:
    tasks = json.loads(batch(tmp_path, "tasks.json").read_text())
    assert set(tasks[0]["data"]) == {"id", "digest", "text", "suggestion"}
    chosen = {"type": "choices", "from_name": "l", "to_name": "text", "value": {"choices": ["good"]}}
    tasks[0]["annotations"] = [
        {"completed_by": {"id": 1, "email": "ann@example.com"}, "result": [chosen]},
        {"completed_by": 2, "result": [chosen]},
        {"completed_by": 3, "result": [chosen], "was_cancelled": True},
    ]
    tasks[1]["annotations"] = [{"completed_by": 2, "result": []}]
    (tmp_path / "export.json").write_text(json.dumps(tasks[:2]))
    assert [label.annotator for label in read_labels(tmp_path / "export.json")] == ["ann@example.com", "2"]
    small = [{"id": "r1", "annotator": 1, "choice": "good"}]
    (tmp_path / "min.json").write_text(json.dumps(small))
    assert read_labels(tmp_path / "min.json") == [Label("r1", "", "1", "good")]


def test_the_last_word_of_an_annotator_counts(tmp_path: Path) -> None:
    (tmp_path / "ann.jsonl").write_text('{"id": "r1", "label": "a"}\n\n{"id": "r1", "label": "b"}\n')
    assert read_labels(tmp_path / "ann.jsonl") == [Label("r1", "", "ann", "b")]


def test_pictures_lie_beside_the_batch(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(file, "PNG")
    line = json.loads(batch(tmp_path, "b.jsonl", [Record("r1", image=file.getvalue())]).read_text())
    assert line["image"] == "b-files/r1.png"
    assert (tmp_path / line["image"]).read_bytes() == file.getvalue()


def test_conversations_are_written_to_be_read(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    line = json.loads(batch(tmp_path, "b.jsonl", [Record("r1", messages=talk)]).read_text())
    assert line["messages"] == "user: hi\n\nassistant: hello"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "x", "the ending .txt"),
        ("l.jsonl", "{", "JSONDecodeError"),
        ("l.jsonl", "[1]", "AttributeError"),
        ("l.json", '{"a": 1}', "l.json"),
        ("l.csv", "a,b\n1,2\n", "no row with"),
    ],
)
def test_a_file_without_labels_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        read_labels(tmp_path / name)


def test_a_missing_file_and_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file of that name"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="Label Studio"):
        batch(tmp_path, "batch.xls")
