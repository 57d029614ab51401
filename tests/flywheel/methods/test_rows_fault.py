"""What a method cannot learn is known from the row alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flywheel.methods.rows_fault import fault_of
from flywheel.methods.table import METHODS
from flywheel.modalities.rooms import ROOMS
from flywheel.record import Record

TEXT = ROOMS["text_causal"].columns
USER, SAID = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be brief."}
SIDES = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}


@pytest.mark.parametrize(
    ("method", "row", "reason"),
    [
        (None, {"text": "a"}, ""),
        (None, {"text": " "}, "empty"),
        (None, {"label": "a"}, "missing_column"),
        (None, {"prompt": "a", "completion": "b"}, ""),
        (None, {"prompt": "a", "completion": " "}, "no_answer"),
        (None, {"prompt": "a"}, "no_answer"),
        (None, {"messages": [SYSTEM, USER, SAID]}, ""),
        (None, {"messages": [SYSTEM, SAID]}, "no_user_turn"),
        (None, {"messages": [USER]}, "no_answer"),
        (None, SIDES, ""),
        ("pretrain", {"messages": [USER]}, ""),
        ("pretrain", {"text": "\n"}, "empty"),
        ("sft", {"text": "a"}, "no_answer"),
        ("sft", {"messages": [USER], "chosen": [SAID], "rejected": [SAID]}, ""),
        ("dpo", SIDES, ""),
        ("dpo", {**SIDES, "rejected": "So. "}, "equal_sides"),
        ("dpo", {**SIDES, "rejected": None}, "missing_column"),
        ("orpo", {**SIDES, "chosen": " "}, "empty"),
        ("reward", {**SIDES, "prompt": None}, ""),
        ("kto", {"prompt": "a", "completion": "b", "label": "true"}, ""),
        ("kto", {"prompt": "a", "completion": "b"}, "missing_column"),
        ("grpo", {"prompt": "a"}, ""),
        ("grpo", {"messages": [SYSTEM]}, "no_user_turn"),
        ("distill", {"text": "a"}, ""),
    ],
)
def test_reasons(method: str | None, row: dict[str, Any], reason: str) -> None:
    assert fault_of(method, TEXT)(Record("1", **row)) == reason


def test_every_method_of_every_modality_has_a_check() -> None:
    assert {method for entry in ROOMS.values() for method in entry.methods} == set(METHODS)
    for entry in ROOMS.values():
        for method in (None, *entry.methods):
            assert fault_of(method, entry.columns)(Record("1", audio=b"x")) == "missing_column"


def test_pictures_are_learned_as_they_are() -> None:
    check = fault_of(None, ROOMS["image_diffusion"].columns)
    assert check(Record("1", image=b"x", label="3")) == ""
    assert check(Record("1", text="a")) == "missing_column"


def test_the_check_needs_no_torch() -> None:
    code = "import sys, flywheel.methods.rows_fault; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
