from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from infra.errors import ExpectationError
from infra.expectations import Expectations, check, names


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": list("abcdefgh"),
            "split": ["train"] * 6 + ["heldout"] * 2,
            "length": [0, 10, 20, 30, 40, 50, 60, 70],
            "parses": [True, True, False, True, True, True, True, True],
            "digest": ["x", "y", "z", "x", "u", "v", "w", "t"],
            "note": [None, "n", None, None, "n", None, None, "n"],
        }
    )


def test_failing_rows_and_what_they_fail(frame: pd.DataFrame, tmp_path: Path) -> None:
    suite: Expectations = [
        {"expect_column_values_to_be_unique": {"column": "digest"}},
        {"expect_column_values_to_be_between": {"column": "length", "min_value": 1}},
        {"expect_column_values_to_be_in_set": {"column": "split", "value_set": ["train", "heldout"]}},
    ]
    outcome = check(frame, suite, "rows", tmp_path)
    unique, length = 'expect_column_values_to_be_unique(column="digest")', "min_value=1)"
    assert outcome.row_failures[0][0] == unique
    assert outcome.row_failures[0][1].endswith(length)
    assert outcome.row_failures[3] == (unique,)
    assert set(outcome.row_failures) == {0, 3}
    assert (outcome.success, outcome.suite_failures, outcome.evaluated) == (False, (), 3)


def test_failures_of_the_table_blame_no_row(frame: pd.DataFrame, tmp_path: Path) -> None:
    suite: Expectations = [
        {"expect_table_row_count_to_be_between": {"min_value": 100}},
        {"expect_column_mean_to_be_between": {"column": "length", "max_value": 40}},
        {"expect_column_to_exist": {"column": "label"}},
        {"expect_column_distinct_values_to_equal_set": {"column": "split", "value_set": ["train", "heldout"]}},
        {"expect_column_distinct_values_to_equal_set": {"column": "split", "value_set": ["train", "test"]}},
        {"expect_column_values_to_be_between": {"column": "digest", "min_value": 3}},
    ]
    outcome = check(frame, suite, "rows", tmp_path)
    count, exist, values, kind = outcome.suite_failures
    assert count == "expect_table_row_count_to_be_between(min_value=100): 8"
    assert exist.startswith("expect_column_to_exist")
    assert values.endswith('missing ["test"]; unexpected ["heldout"]')
    assert "same type" in kind
    assert not outcome.row_failures


def test_mostly_tolerates_rows_yet_names_them(frame: pd.DataFrame, tmp_path: Path) -> None:
    def parses(mostly: float) -> Expectations:
        arguments = {"column": "parses", "value_set": [True], "mostly": mostly}
        return [{"expect_column_values_to_be_in_set": arguments}]

    met = check(frame, parses(0.8), "rows", tmp_path)
    assert met.success
    assert not met.suite_failures
    assert set(met.row_failures) == {2}
    missed = check(frame, parses(0.9), "rows", tmp_path)
    assert not missed.success
    assert missed.suite_failures[0].endswith("1 of 8 rows")


def test_conditions_and_nulls(frame: pd.DataFrame, tmp_path: Path) -> None:
    short = {"column": "length", "max_value": 60}
    heldout = {**short, "row_condition": 'split == "heldout"', "condition_parser": "pandas"}
    outcome = check(frame, [{"expect_column_values_to_be_between": heldout}], "rows", tmp_path)
    assert set(outcome.row_failures) == {7}
    outcome = check(frame, [{"expect_column_values_to_not_be_null": {"column": "note"}}], "rows", tmp_path)
    assert set(outcome.row_failures) == {0, 2, 3, 5, 6}


def test_the_same_expectation_twice(frame: pd.DataFrame, tmp_path: Path) -> None:
    unique = {"expect_column_values_to_be_unique": {"column": "digest"}}
    outcome = check(frame, [unique, unique], "rows", tmp_path)
    assert len(outcome.row_failures[3]) == outcome.evaluated == 2


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("expect_column_values_unique", {"column": "digest"}, "did you mean `expect_column_values_to_be_unique`"),
        ("expect_column_values_to_be_unique", {"column": "digst"}, "did you mean `digest`"),
        ("expect_column_values_to_be_unique", {"colum": "digest"}, "colum: extra fields not permitted"),
        ("expect_column_values_to_be_unique", {"column": "digest", "mostly": 2}, "mostly: .* less than or equal to 1"),
        ("expect_column_values_to_be_between", {"column": "length"}, "min_value and max_value cannot both be None"),
    ],
)
def test_a_wrong_expectation_is_refused(
    frame: pd.DataFrame, tmp_path: Path, name: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ExpectationError, match=message):
        check(frame, [{name: arguments}], "rows", tmp_path)


def test_data_docs_are_whole_and_load_nothing(frame: pd.DataFrame, tmp_path: Path) -> None:
    suite: Expectations = [
        {"expect_column_values_to_be_unique": {"column": "digest"}},
        {"expect_table_row_count_to_be_between": {"min_value": 100}},
        {"expect_column_values_to_be_between": {"column": "digest", "min_value": 3}},
    ]
    for docs in (tmp_path / "a", tmp_path / "b"):
        check(frame, suite, "digits", docs)
    page = (tmp_path / "a" / "index.html").read_text()
    assert "digits" in page
    assert "values must be unique" in page
    assert "100" in page
    assert not re.search(r"(src|href)=\"(?!#)|//\w+\.|<script|@import|url\(", page)
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert [r["success"] for r in results] == [False, False, False]
    assert [r["unexpected"] for r in results] == [2, 0, 0]
    for file in ("index.html", "results.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_every_name_is_an_expectation() -> None:
    import great_expectations as gx

    classes = {name.lower() for name in dir(gx.expectations)}
    assert len(names()) > 40
    assert all(name.replace("_", "") in classes for name in names())


def test_nothing_heavy_is_imported_without_expectations(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, pandas; from infra.expectations import check, names; names();"
        "check(pandas.DataFrame({'id': ['a']}), [], 'rows', pathlib.Path(sys.argv[1]));"
        "assert 'great_expectations' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
