from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import ValidationError

from flywheel import validation
from flywheel.datacard import DataFacts, card, slices
from flywheel.errors import ValidationFailed
from flywheel.overlap import contamination
from flywheel.recipe import Validate
from flywheel.record import Record, read_rows, write_rows

VOCABULARY = [f"word{n}" for n in range(3_000)]


@dataclass
class Found:
    """A check that met every expectation but those given."""

    row_failures: dict[int, tuple[str, ...]] = field(default_factory=dict)
    suite_failures: tuple[str, ...] = ()
    evaluated: int = 1


def text(seed: int, size: int = 60) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=size))


def nearly(seed: int) -> str:
    """The text of 400 words with one of them changed."""
    words = text(seed, 400).split()
    return " ".join([*words[:396], "other", *words[397:]])


def lay(directory: Path, **splits: list[Record]) -> Path:
    directory.mkdir(exist_ok=True)
    for split, records in splits.items():
        write_rows(directory / f"{split}.parquet", records)
    return directory


def rows(directory: Path) -> Path:
    """Ten held-out rows, of which three are contaminated: a shared passage, a near duplicate, an equal picture."""
    train = [Record(f"t{n}", text=text(n)) for n in range(20)]
    train += [Record("t-near", text=nearly(200)), Record("t-picture", image=b"png")]
    passage = " ".join(text(7).split()[20:33])
    heldout = [Record(f"h{n}", text=text(100 + n)) for n in range(7)]
    heldout += [
        Record("h-passage", text=f"{text(300)} {passage} {text(301)}"),
        Record("h-near", text=text(200, 400)),
        Record("h-picture", image=b"png"),
    ]
    return lay(directory, train=train, heldout=heldout)


def test_shared_runs_near_duplicates_and_equal_pictures_count_once_each(tmp_path: Path) -> None:
    found = contamination(rows(tmp_path) / "train.parquet", tmp_path / "heldout.parquet", tmp_path)
    assert found == {
        "heldout": 10,
        "rows": 3,
        "rate": 0.3,
        "shared_runs": 2,
        "similar": 2,
        "examples": [
            {"heldout": "h-passage", "train": "t7"},
            {"heldout": "h-near", "train": "t-near"},
            {"heldout": "h-picture"},
        ],
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["heldout.parquet", "train.parquet"]


def test_the_other_way_round_the_same_texts_meet(tmp_path: Path) -> None:
    found = contamination(rows(tmp_path) / "heldout.parquet", tmp_path / "train.parquet", tmp_path)
    assert (found["heldout"], found["rows"], found["similar"]) == (22, 3, 2)


def test_more_than_the_threshold_stops_the_run_after_the_files_are_written(tmp_path: Path) -> None:
    data = rows(tmp_path / "in")
    summary = validation.apply(data, Found(), Validate(max_contamination=0.3), tmp_path)
    assert summary["contamination"]["rate"] == 0.3
    assert summary == json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").unlink()
    with pytest.raises(ValidationFailed) as raised:
        validation.apply(data, Found(), Validate(max_contamination=0.29), tmp_path)
    assert "3 of 10 (30.0%)" in raised.value.found
    assert "h-passage in t7" in raised.value.found
    assert raised.value.expected == "at most 29.0% (`data.validate.max_contamination`)"
    assert json.loads((tmp_path / "report.json").read_text()) == summary
    assert len(list(read_rows(tmp_path / "heldout.parquet"))) == 10


def test_rows_that_are_quarantined_are_not_looked_at(tmp_path: Path) -> None:
    data = rows(tmp_path / "in")
    aside = Found({22 + 7: ("short",), 22 + 8: ("short",), 22 + 9: ("short",)})
    clean = Validate(max_contamination=0, max_quarantined=0.5)
    assert validation.apply(data, aside, clean, tmp_path)["contamination"]["rows"] == 0


def test_nobody_who_does_not_ask_pays_for_it(tmp_path: Path) -> None:
    assert "contamination" not in validation.apply(rows(tmp_path / "in"), Found(), Validate(), tmp_path)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_the_threshold_is_a_share(share: float) -> None:
    with pytest.raises(ValidationError):
        Validate(max_contamination=share)


def test_the_card_says_what_was_found_or_that_nobody_looked(tmp_path: Path) -> None:
    counts = {"read": 32, "kept": 32, "dropped": {}, "quarantined": {}, "sources": {}}
    prepared = {**counts, "augmented": 0, "operations": []}
    train = slices([Record("0" * 16, text="a row")], 1)
    asked = validation.apply(rows(tmp_path / "in"), Found(), Validate(max_contamination=1), tmp_path)
    for summary, said in (
        (asked, "3 of 10 held-out rows (30.0%): 2 share 13 words in a row with training rows, 2 are nearly the same"),
        ({**asked, "contamination": None}, "Not looked for: `data.validate.max_contamination` is empty."),
    ):
        assert said in card(DataFacts("tiny", (), counts, prepared, summary, train))
