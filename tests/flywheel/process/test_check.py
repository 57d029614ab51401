import inspect
from typing import get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flywheel.errors import RecipeError
from flywheel.process.check import check_operations
from flywheel.process.table import OPERATIONS
from flywheel.record import Record

EXAMPLES: dict[str, object] = {"size": 8, "sampling_rate": 8_000, "keep": ["en"], "words": ["word"]}
REQUIRED: dict[str, dict[str, object]] = {
    name: {parameter: EXAMPLES[parameter]}
    for name, operator in OPERATIONS.items()
    for parameter, found in inspect.signature(operator.function(name)).parameters.items()
    if found.default is inspect.Parameter.empty and parameter in EXAMPLES
}
"""Arguments of operations that have some without a default."""


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_of_the_table_is_there_and_says_what_its_arguments_are(name: str) -> None:
    function = OPERATIONS[name].function(name)
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters)[OPERATIONS[name].kind != "corpus" :]
    assert all(parameter in hints for parameter in parameters)
    assert inspect.getdoc(function)


TEXT_OPERATIONS = sorted(
    name
    for name, operator in OPERATIONS.items()
    if operator.kind == "rows" and name not in {"decontaminate", "import_labels", "weak_labels", "thin"}
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(max_size=30), max_size=5), st.sampled_from(TEXT_OPERATIONS))
def test_every_row_comes_out_once_and_in_order(texts: list[str], name: str) -> None:
    rows = [Record(id=str(n), text=text, origin={"path": f"{n}.txt"}) for n, text in enumerate(texts)]
    result = list(OPERATIONS[name].function(name)(rows, **REQUIRED.get(name, {})))
    assert [r.id for r in result] == [str(n) for n in range(len(texts))]


def test_good_operations_pass_the_check() -> None:
    check_operations(
        ["normalize_newlines", {"near_dedup": {"threshold": 1}}, {"length_filter": {"min": 1, "max": None}}]
    )
    check_operations([{"docstring_pairs": {"max_chars": 900}}], "finetune.process")


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("near_dedupe", r"data.process\[1\].*found: +near_dedupe.*did you mean near_dedup\?"),
        ({"near_dedup": {"treshold": 0.8}}, r"treshold.*did you mean threshold\?"),
        ({"near_dedup": {"threshold": 1.5}}, r"near_dedup.threshold.*1.5.*less than or equal to 1"),
        ({"near_dedup": {"threshold": "0.8"}}, r"'0.8'.*valid number"),
        ({"exact_dedup": {"by": "text"}}, r"by.*no arguments.*leave it out"),
        ({"length_filter": {"min": 9, "max": 3}}, r"max below min"),
        ({"exact_dedup": {}, "lowercase": {}}, r"2 operations in one item"),
        ({}, r"0 operations"),
        ("docstring_pairs", r"finetune.process"),
    ],
)
def test_a_wrong_operation_is_named_with_its_remedy(
    operation: str | dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        check_operations(["exact_dedup", operation])
