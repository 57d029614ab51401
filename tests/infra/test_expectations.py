from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from infra.errors import ExpectationError
from infra.expectations import Expectations, check, check_arguments, check_names, columns, names


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


def of(**values: list[object]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in values.items()})


@pytest.mark.parametrize(
    ("name", "arguments", "column", "values", "failing"),
    [
        ("expect_token_length_to_be_between", {"max_value": 8}, "tokens", [3, 9, None, 8], {1}),
        ("expect_language_to_be_in_set", {"value_set": ["en", "de"]}, "language", ["en", "fr", None, "de"], {1}),
        ("expect_text_to_be_intact", {}, "encoding_errors", [0.0, 0.01, None], {1}),
        ("expect_text_to_be_intact", {"max_value": 0.1}, "encoding_errors", [0.0, 0.01, 0.2], {2}),
        ("expect_roles_to_alternate", {}, "roles_alternate", [True, None, False], {2}),
        ("expect_prompt_to_differ_from_completion", {}, "prompt_differs", [False, True], {0}),
        ("expect_chosen_to_differ_from_rejected", {}, "chosen_differs", [False, True], {0}),
        ("expect_images_to_be_intact", {}, "image_intact", [True, False], {1}),
        ("expect_audio_to_be_intact", {}, "audio_intact", [None, None], set()),
        ("expect_no_train_heldout_leakage", {}, "leaks", [False, True, False], {1}),
        ("expect_roles_to_alternate", {"column": "mine"}, "mine", [False, True], {0}),
    ],
)
def test_our_own_expectations_on_rows(
    tmp_path: Path, name: str, arguments: dict[str, object], column: str, values: list[object], failing: set[int]
) -> None:
    outcome = check(of(**{column: values}), [{name: arguments}], "rows", tmp_path)
    assert set(outcome.row_failures) == failing
    assert outcome.success == (not failing)
    assert not outcome.suite_failures


@pytest.mark.parametrize(
    ("name", "arguments", "column", "values", "found"),
    [
        ("expect_duplicate_ratio_to_be_between", {"max_value": 0.2}, "digest", list("aabc"), "0.25"),
        ("expect_duplicate_ratio_to_be_between", {"max_value": 0.25}, "digest", list("aabc"), None),
        ("expect_duplicate_ratio_to_be_between", {"max_value": 0.0}, "digest", [None, None], None),
        ("expect_pii_ratio_to_be_between", {"max_value": 0.4}, "has_pii", [True, False, None, None], "0.5"),
        ("expect_pii_ratio_to_be_between", {"max_value": 0.0}, "has_pii", [False, None], None),
        ("expect_class_shares_to_be_between", {"min_value": 0.3}, "label", list("aaab"), '{"b": 0.25}'),
        ("expect_class_shares_to_be_between", {"min_value": 0.25}, "label", list("aaab"), None),
        ("expect_group_shares_to_be_between", {"max_value": 0.5}, "group", ["x", "x", "y", None], '{"x": 0.6667}'),
    ],
)
def test_our_own_expectations_on_the_table(
    tmp_path: Path, name: str, arguments: dict[str, object], column: str, values: list[object], found: str | None
) -> None:
    outcome = check(of(**{column: values}), [{name: arguments}], "rows", tmp_path)
    assert not outcome.row_failures
    assert [failure.partition(": ")[2] for failure in outcome.suite_failures] == ([found] if found else [])


def test_shares_are_judged_within_a_condition(tmp_path: Path) -> None:
    frame = of(split=["train"] * 3 + ["heldout"], label=["a", "b", "b", "a"])
    arguments = {"max_value": 0.5, "row_condition": 'split == "train"', "condition_parser": "pandas"}
    outcome = check(frame, [{"expect_class_shares_to_be_between": arguments}], "rows", tmp_path)
    assert outcome.suite_failures[0].endswith('{"b": 0.6667}')


def test_data_docs_say_what_our_own_expectations_mean(tmp_path: Path) -> None:
    suite: Expectations = [
        {"expect_pii_ratio_to_be_between": {"max_value": 0.25}},
        {"expect_roles_to_alternate": {"mostly": 0.5}},
    ]
    check(of(has_pii=[True, False], roles_alternate=[True, True]), suite, "chat", tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "Share of rows with personal identifiers: max_value=0.25" in page
    assert "User and assistant take turns: mostly=0.5" in page


def test_the_columns_that_a_suite_reads() -> None:
    suite: Expectations = [
        {"expect_token_length_to_be_between": {"max_value": 5, "row_condition": 'language == "en"'}},
        {"expect_column_values_to_be_unique": {"column": "digest"}},
        {"expect_compound_columns_to_be_unique": {"column_list": ["prompt", "label"]}},
        {"expect_table_row_count_to_be_between": {"min_value": 1}},
    ]
    assert columns(suite) == {"tokens", "language", "en", "digest", "prompt", "label"}


def test_a_misspelt_name_of_our_own_is_refused_at_load() -> None:
    with pytest.raises(ExpectationError, match="did you mean `expect_pii_ratio_to_be_between`"):
        check_names([{"expect_pii_ratio_to_be_less_than": {"max_value": 1}}])


def test_a_column_that_was_not_worked_out_is_still_named(frame: pd.DataFrame, tmp_path: Path) -> None:
    suite: Expectations = [{"expect_column_values_to_be_between": {"column": "token", "max_value": 9}}]
    with pytest.raises(ExpectationError, match="did you mean `tokens`"):
        check(frame, suite, "rows", tmp_path, other_columns=["tokens", "language"])


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

    from infra import custom_expectations

    classes = {name.lower() for name in [*dir(gx.expectations), *dir(custom_expectations)]}
    assert len(names()) > 40
    assert all(name.replace("_", "") in classes for name in names())


def test_nothing_heavy_is_imported_without_expectations(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, pandas; from infra.expectations import check, names; names();"
        "check(pandas.DataFrame({'id': ['a']}), [], 'rows', pathlib.Path(sys.argv[1]));"
        "assert 'great_expectations' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_arguments_are_refused_before_there_is_a_table() -> None:
    between = "expect_column_values_to_be_between"
    check_arguments([{between: {"column": "length", "min_value": 1}}, {"expect_no_train_heldout_leakage": {}}])
    with pytest.raises(ExpectationError, match=r"min: extra fields"):
        check_arguments([{between: {"column": "length", "min": 1}}])
