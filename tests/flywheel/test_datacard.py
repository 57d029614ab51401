from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel import artifact, datacard
from flywheel.record import Record, read_rows
from tests.stores import JANE, NOTES, PROCESS, Data, recipe, run, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("card")
    mails = [f"write to {JANE} about matter number {n}; she is in a hurry" for n in range(8)]
    notes = {**write(root / "notes", [*NOTES, "short", "please reject this row"]), "license": "CC0-1.0"}
    mails_source = write(root / "mails", [*mails, mails[0]])
    return run(root / "store", recipe([notes, mails_source], process=PROCESS, validate={"max_quarantined": 0.5}))


def card(data: Data, process: Any = tuple(PROCESS), **summaries: Mapping[str, Any]) -> str:
    train = artifact.location(data.store, "validate", data.lineage["validate"]) / "train.parquet"
    slices = datacard.slices(read_rows(train), data.summaries["validate"]["rows"]["train"])
    return datacard.card(datacard.DataFacts("tiny", process, train=slices, **{**data.summaries, **summaries}))


def lines(text: str, heading: str) -> list[list[str]]:
    """The rows of the tables below a heading."""
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]


def test_the_metadata_is_what_the_hub_reads(data: Data) -> None:
    metadata = yaml.safe_load(card(data).split("---\n")[1])
    assert metadata["license"] == ["cc0-1.0", "mit"]
    assert metadata["language"] == ["en"]
    assert metadata["size_categories"] == ["n<1K"]


def test_the_counts_of_each_source_add_up(data: Data) -> None:
    head, _, *rows = lines(card(data), "Sources")
    assert head == ["source", "type", "licence", "read", "kept", "dropped", "quarantined"]
    assert [row[:4] for row in rows] == [
        ["`mails`", "files", "MIT", "9"],
        ["`notes`", "files", "CC0-1.0", "26"],
        ["all", "", "", "35"],
    ]
    for row in rows:
        read, kept, dropped, quarantined = map(int, row[3:])
        assert kept + dropped + quarantined == read


def test_every_reason_is_told(data: Data) -> None:
    left = {tuple(row) for row in lines(card(data), "What was left out, and why")[2:]}
    assert left >= {
        ("prepare", "dropped", "too_short", "1"),
        ("prepare", "dropped", "exact_duplicate", "1"),
        ("validate", "quarantined", "expect_no_reject", "1"),
    }


def test_what_was_masked_is_counted_by_kind(data: Data) -> None:
    written = card(data)
    ((kind, number),) = lines(written, "Personal identifiers and secrets")[2:]
    train = artifact.location(data.store, "validate", data.lineage["validate"]) / "train.parquet"
    assert (kind, int(number)) == (
        "`email`",
        sum(row.origin.get("pii", {}).get("email", 0) for row in read_rows(train)),
    )
    assert "`mask_secrets` is not among the operations." in written


def test_slices_show_where_the_rows_come_from_and_how_they_lean(data: Data) -> None:
    rows = lines(card(data), "Slices of the training rows")
    assert {row[0] for row in rows} >= {"`notes`", "`mails`", "`en`", "`feminine`"}
    assert (
        sum(int(row[1]) for row in rows if row[0] in ("`notes`", "`mails`"))
        == (data.summaries["validate"]["rows"]["train"])
    )


def test_pictures_are_measured_in_bytes_and_code_has_no_language() -> None:
    rows = [Record(f"{n:016x}", image=b"x" * 100, label="0" if n else "1", origin={"source": "p"}) for n in range(10)]
    rows += [Record("a" * 16, text="def f(): pass", origin={"source": "c"})]
    found = datacard.slices(rows, len(rows), {"c"})
    assert found.media == {"p"}
    assert not found.languages
    text = "\n".join(datacard._slices(found))
    assert "| `p` | 10 | 90.9% | 100 bytes | 100 bytes |" in text
    assert "2 labels; the most frequent is 9 times as frequent as the rarest." in text


def test_words_of_the_data_are_shown_as_they_are() -> None:
    label = "![x](http://example.org/x.png)|<b>`a`\n" + "y" * 200
    found = datacard.slices([Record("0" * 16, text="hello", label=label)], 1)
    (line,) = [row for row in "\n".join(datacard._slices(found)).splitlines() if "example.org" in row]
    assert line.count("|") == 4
    assert line.count("`") == 2


def test_a_card_without_operations_or_losses_says_so(tmp_path: Path) -> None:
    made = run(tmp_path / "store", recipe(write(tmp_path / "in", NOTES)))
    text = card(made, process=())
    assert "## What was left out, and why\n\nNothing." in text
    assert "## Operations, in order\n\nNone." in text
