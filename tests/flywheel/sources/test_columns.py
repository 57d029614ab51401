import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.record import COLUMNS, Record, content
from flywheel.sources.columns import record_fields, row_type

DATA = Path(os.environ.get("FLYWHEEL_TEST_DATA", Path(__file__).parents[4] / "shared/data"))
USER, BOT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}


def fields(cells: dict[str, Any], **mapping: str) -> dict[str, Any]:
    found, reason, detail = record_fields(cells, mapping)
    assert not reason, detail
    return found


def reason(cells: dict[str, Any], **mapping: str) -> str:
    found, why, _ = record_fields(cells, mapping)
    assert not (found and why)
    return why


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ({"text": "a"}, "text"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"prompt": "a"}, "prompt"),
        ({"messages": [USER, BOT]}, "messages"),
        ({"chosen": "a", "rejected": "b"}, "preference"),
        ({"prompt": "a", "chosen": "a", "rejected": "b"}, "preference"),
        ({"image": b"a", "text": "b"}, "image_text"),
        ({"image": b"a", "label": "b"}, "image_label"),
        ({"image": b"a", "messages": [USER, BOT]}, "image_messages"),
        ({"audio": b"a"}, "audio"),
    ],
)
def test_standard_names(cells: dict[str, Any], kind: str) -> None:
    assert fields({**cells, "other": 1}) == cells
    assert row_type(cells) == kind


def test_the_mapping_wins() -> None:
    cells = {"text": "a", "question": "b", "reply": "c", "topic": 3, "user": "u1"}
    assert fields(cells, prompt="question", completion="reply") == {"prompt": "b", "completion": "c"}
    assert fields(cells, label="topic", group="user") == {"text": "a", "label": "3", "group": "u1"}
    assert reason(cells, text="body") == "missing_column"
    assert reason(cells, completion="reply") == "missing_column"


def test_layouts_of_alpaca() -> None:
    alpaca = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    assert fields(alpaca) == {"prompt": "Add.\n\n1 and 2", "completion": "3"}
    assert fields({**alpaca, "input": ""}) == {"prompt": "Add.", "completion": "3"}
    assert "alpaca" in record_fields(alpaca, {})[2]
    assert fields({"instruction": "Add.", "context": "1", "response": "3"})["prompt"] == "Add.\n\n1"
    told = fields({**alpaca, "system": "Be brief.", "history": [["hi", "hello"]]})["messages"]
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user", "assistant"]
    pair = {"instruction": "Add.", "input": "1 and 2", "chosen": "3", "rejected": "4"}
    assert fields(pair) == {"prompt": "Add.\n\n1 and 2", "chosen": "3", "rejected": "4"}


def test_layouts_of_sharegpt() -> None:
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    assert fields({"conversations": turns}) == {"messages": [USER, BOT]}
    assert fields({"conversations": json.dumps(turns)}) == {"messages": [USER, BOT]}
    assert fields({"conversations": turns, "system": "Be brief."})["messages"][0]["role"] == "system"
    assert fields({"conversations": turns[:1], "chosen": turns[1], "rejected": {"from": "gpt", "value": "no"}}) == {
        "messages": [USER],
        "chosen": [BOT],
        "rejected": [{"role": "assistant", "content": "no"}],
    }


def test_other_names() -> None:
    assert fields({"question": "a", "answer": "b", "id": 1}) == {"prompt": "a", "completion": "b"}
    assert fields({"prompt": "a", "response": "b"}) == {"prompt": "a", "completion": "b"}
    assert fields({"url": "x", "content": "a", "label": True}) == {"text": "a", "label": "True"}
    assert reason({"content": "a", "body": "b"}) == "ambiguous"
    assert reason({"question": "a", "answer": "b", "context": "c"}) == "ambiguous"


def test_conversational_prompts_become_messages() -> None:
    assert fields({"prompt": [USER], "completion": [BOT]}) == {"messages": [USER, BOT]}
    assert fields({"prompt": "hi", "completion": [BOT]}) == {"messages": [USER, BOT]}
    assert fields({"prompt": [USER], "chosen": [BOT], "rejected": "no"}) == {
        "messages": [USER],
        "chosen": [BOT],
        "rejected": "no",
    }
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    assert fields({"messages": [{"role": "User", "content": parts, "weight": 1}]}) == {"messages": [USER]}


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"a": "x", "b": "y"}, "missing_column"),
        ({}, "missing_column"),
        ({"text": 3}, "not_text"),
        ({"text": b"\xff"}, "undecodable"),
        ({"text": None}, "empty"),
        ({"text": " \n"}, "empty"),
        ({"prompt": "a", "completion": ""}, "empty"),
        ({"prompt": "", "completion": "a"}, "empty"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "empty"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user", "content": " "}]}, "empty"),
        ({"completion": "a"}, "missing_column"),
        ({"chosen": "a", "id": 1}, "missing_column"),
        ({"messages": "hello"}, "bad_messages"),
        ({"messages": ["hello"]}, "bad_messages"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "bad_messages"),
        ({"messages": [{"role": "user", "content": None}]}, "bad_messages"),
        ({"messages": [{"content": "a"}]}, "bad_messages"),
        ({"image": "a.png"}, "not_bytes"),
        ({"image": {"bytes": None, "path": "a.png"}}, "not_bytes"),
        ({"text": "a", "label": ["b"]}, "not_text"),
    ],
)
def test_reasons(cells: dict[str, Any], why: str) -> None:
    assert reason(cells) == why


def test_bytes_that_are_a_text() -> None:
    assert fields({"text": "é".encode(), "label": b"a"}) == {"text": "é", "label": "a"}
    assert fields({"prompt": b"a", "completion": b"b"}) == {"prompt": "a", "completion": "b"}


def test_images_as_datasets_stores_them() -> None:
    assert fields({"image": {"bytes": b"a", "path": None}, "text": ""}) == {"image": b"a"}


@pytest.mark.parametrize(("file", "kind"), [("alpaca.json", "prompt_completion"), ("preferences.json", "preference")])
def test_real_rows(file: str, kind: str) -> None:
    if not (DATA / file).exists():
        pytest.skip("the test data is not here")
    rows = json.loads((DATA / file).read_text())
    kinds = [row_type(record_fields(row, {})[0]) for row in rows]
    assert kinds.count(kind) > 0.98 * len(rows)


VALUES = st.recursive(
    st.none() | st.text(max_size=5) | st.integers() | st.binary(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "bytes", "type", "text"]), inner)
    ),
    max_leaves=6,
)
NAMES = (*COLUMNS, "conversations", "instruction", "input", "output", "system", "history", "question", "answer", "body")


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5),
    st.dictionaries(st.sampled_from([*COLUMNS, "group"]), st.sampled_from(NAMES), max_size=2),
)
def test_any_cells_make_a_record_or_have_a_reason(cells: dict[str, Any], mapping: dict[str, str]) -> None:
    found, why, detail = record_fields(cells, mapping)
    assert bool(found) != bool(why)
    assert len(detail) <= 200
    if found:
        assert row_type(found)
        content(Record("", **{name: value for name, value in found.items() if name != "group"}))
