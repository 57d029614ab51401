from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel import validation
from flywheel.errors import ValidationFailed
from flywheel.methods.rows_fault import fault_of
from flywheel.recipe import Validate
from flywheel.record import Record, read_rows, write_rows


class Words:
    """The smallest room that validation accepts."""

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        text = record.text or ""
        return {"length": len(text), "digest": hashlib.sha256(text.encode()).hexdigest()}


@dataclass
class Found:
    row_failures: dict[int, tuple[str, ...]] = field(default_factory=dict)
    suite_failures: tuple[str, ...] = ()
    evaluated: int = 1


def rows(directory: Path, **splits: list[tuple[str, str]]) -> Path:
    """Files of rows from (text, group) pairs."""
    directory.mkdir(exist_ok=True)
    for split, pairs in splits.items():
        records = [
            Record(f"{split}{n}", text=text, origin={"source": "s", "group": group})
            for n, (text, group) in enumerate(pairs)
        ]
        write_rows(directory / f"{split}.parquet", records)
    return directory


def some(directory: Path) -> Path:
    train = [(f"text {n}", f"g{n}") for n in range(8)]
    return rows(directory, train=train, heldout=[("other", "h1"), ("another", "h2")])


def test_facts_hold_every_record_in_order(tmp_path: Path) -> None:
    frame = validation.facts(Words(), some(tmp_path))
    assert list(frame.columns) == ["id", "split", "length", "digest", "leaks"]
    assert frame["id"].tolist() == [*(f"train{n}" for n in range(8)), "heldout0", "heldout1"]
    assert frame["split"].tolist() == ["train"] * 8 + ["heldout"] * 2
    assert not frame["leaks"].any()


def test_a_row_leaks_by_its_text_or_by_its_group(tmp_path: Path) -> None:
    directory = rows(
        tmp_path,
        train=[("same text", "a"), ("one", "b"), ("two", "c")],
        heldout=[("same text", "d"), ("three", "b"), ("four", "e")],
    )
    assert validation.facts(Words(), directory)["leaks"].tolist() == [True, True, False, True, True, False]


def test_groups_may_stand_on_both_sides_of_a_split_by_id(tmp_path: Path) -> None:
    directory = rows(tmp_path, train=[("same", "a"), ("one", "b")], heldout=[("same", "c"), ("two", "b")])
    assert validation.facts(Words(), directory, by="id")["leaks"].tolist() == [True, False, True, False]


def test_finetuning_rows_belong_to_the_side_they_were_made_from(tmp_path: Path) -> None:
    directory = rows(
        tmp_path,
        train=[("one", "a")],
        heldout=[("two", "b")],
        finetune_train=[("pair", "a"), ("bad pair", "b")],
        finetune_heldout=[("other pair", "b")],
    )
    assert validation.facts(Words(), directory)["leaks"].tolist() == [False, True, False, True, True]


def test_failing_rows_are_quarantined_with_their_reasons(tmp_path: Path) -> None:
    data, out = some(tmp_path / "in"), tmp_path
    outcome = Found({2: ("unique", "short"), 9: ("short",)})
    summary = validation.apply(data, outcome, Validate(max_quarantined=0.2), out)
    assert [r.id for r in read_rows(out / "train.parquet")] == [f"train{n}" for n in (0, 1, 3, 4, 5, 6, 7)]
    assert [r.id for r in read_rows(out / "heldout.parquet")] == ["heldout0"]
    first, second = read_rows(out / "quarantine.parquet")
    assert (first.id, first.origin["reasons"], first.origin["split"]) == ("train2", ["unique", "short"], "train")
    assert (second.id, second.origin["reasons"], second.origin["group"]) == ("heldout1", ["short"], "h2")
    assert summary == json.loads((out / "report.json").read_text())
    assert (summary["read"], summary["kept"], summary["quarantined"]) == (10, 8, {"unique": 1, "short": 1})


@settings(max_examples=20, deadline=None)
@given(failing=st.sets(st.integers(0, 9)))
def test_kept_and_quarantined_add_up(tmp_path_factory: pytest.TempPathFactory, failing: set[int]) -> None:
    out = tmp_path_factory.mktemp("out")
    outcome = Found(dict.fromkeys(failing, ("x",)))
    with suppress(ValidationFailed):  # where a side is left empty; the files are written nevertheless
        validation.apply(some(out / "in"), outcome, Validate(max_quarantined=1), out)
    names = ("train", "heldout", "quarantine")
    found = [record.id for name in names for record in read_rows(out / f"{name}.parquet")]
    assert sorted(found) == sorted([*(f"train{n}" for n in range(8)), "heldout0", "heldout1"])


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    data, outcome = some(tmp_path / "in"), Found({1: ("x",)})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        validation.apply(data, outcome, Validate(max_quarantined=0.5), tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_failing_suite_names_the_expectation_and_what_was_found(tmp_path: Path) -> None:
    outcome = Found(suite_failures=("expect_table_row_count_to_be_between(min_value=100): 10",))
    with pytest.raises(ValidationFailed, match=r"min_value=100\): 10"):
        validation.apply(some(tmp_path / "in"), outcome, Validate(), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["kept"] == 10


def test_too_many_failing_rows_stop_the_run(tmp_path: Path) -> None:
    data, outcome = some(tmp_path / "in"), Found({0: ("short",), 1: ("short",)})
    assert validation.apply(data, outcome, Validate(max_quarantined=0.2), tmp_path)["kept"] == 8
    with pytest.raises(ValidationFailed, match=r"2 of 10 rows fail: short: 2(.|\n)*at most 10.0%"):
        validation.apply(data, outcome, Validate(max_quarantined=0.1), tmp_path)


def test_one_failing_row_stops_a_strict_run(tmp_path: Path) -> None:
    strict = Validate(on_failure="fail", max_quarantined=1)
    assert validation.apply(some(tmp_path / "in"), Found(), strict, tmp_path)["kept"] == 10
    with pytest.raises(ValidationFailed, match="on_failure"):
        validation.apply(some(tmp_path / "in"), Found({0: ("short",)}), strict, tmp_path)


def test_a_side_left_without_rows_stops_the_run(tmp_path: Path) -> None:
    outcome = Found({8: ("short",), 9: ("short",)})
    with pytest.raises(ValidationFailed, match="rows of heldout"):
        validation.apply(some(tmp_path / "in"), outcome, Validate(max_quarantined=0.5), tmp_path)


def test_only_the_wanted_facts_are_held_and_a_digest_is_a_number(tmp_path: Path) -> None:
    frame = validation.facts(Words(), some(tmp_path), wanted=frozenset({"digest"}))
    assert list(frame.columns) == ["split", "digest"]
    assert frame["digest"].dtype == "int64"
    assert frame["digest"].is_unique


def test_facts_that_only_some_rows_have_are_null_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbers(Words):
        def facts(self, record: Record) -> dict[str, bool | int | float | str]:
            return {"number": int(record.id[-1])} if record.id.startswith("heldout") else {}

    monkeypatch.setattr(validation, "CHUNK", 4)  # the first chunks know nothing of numbers
    assert validation.facts(Numbers(), some(tmp_path))["number"].dropna().tolist() == [0, 1]


def test_rows_that_the_method_cannot_learn_are_quarantined_and_named(tmp_path: Path) -> None:
    good = [Record(f"g{n}", prompt="a", completion="b", origin={"source": "s", "path": f"x.csv:{n}"}) for n in range(9)]
    bad = Record("bad", prompt="a", origin={"source": "s", "path": "x.csv:17"})
    write_rows(tmp_path / "train.parquet", [*good, bad])
    (tmp_path / "out").mkdir()
    faults = {"train": fault_of("sft", ("prompt",))}
    some, out = Found({9: ("short",)}), tmp_path / "out"
    summary = validation.apply(tmp_path, some, Validate(max_quarantined=0.1), out, faults)
    assert (summary["kept"], summary["quarantined"]) == (9, {"no_answer": 1})
    (aside,) = read_rows(out / "quarantine.parquet")
    assert aside.origin["reasons"] == ["no_answer", "short"]
    with pytest.raises(ValidationFailed, match=r"the first is x.csv:17 of source 's' \(bad\): no_answer"):
        validation.apply(tmp_path, Found(), Validate(on_failure="fail"), out, faults)
