"""Preferences by DPO, KTO and ORPO: learned, resumed to the bit, and refused where there is nothing to learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import TrainingError
from flywheel.methods.rows_fault import fault_of
from flywheel.methods.table import METHODS, method
from flywheel.modalities import decoder_model
from flywheel.record import Record
from tests.flywheel.methods import tiny_stage

COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected", "text")
PAIRS = [Record(str(i), prompt=f"is {i} good?", chosen="yes it is", rejected="no never") for i in range(16)]
ASK: list[dict[str, str]] = [{"role": "user", "content": "is it good?"}]
TALKS = [
    Record(
        str(i),
        chosen=[*ASK, {"role": "assistant", "content": "yes"}],
        rejected=[*ASK, {"role": "assistant", "content": f"no {i}"}],
    )
    for i in range(8)
]


def fault(name: str, **columns: Any) -> str:
    return fault_of(name, COLUMNS)(Record("0", **columns))


@pytest.mark.parametrize("name", ["dpo", "kto", "orpo"])
def test_learns_and_resumes_to_the_bit(name: str, tmp_path: Path) -> None:
    recipe = tiny_stage.recipe(name, eval_steps=6)
    assert tiny_stage.resumed_equals_whole(tmp_path, recipe, PAIRS, kills=(4, 8))
    curve = json.loads((tmp_path / "whole/out/history.json").read_text())
    losses = [point["eval_loss"] for point in curve if "eval_loss" in point]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["dpo", "kto", "orpo"])
def test_conversations_with_an_adapter(name: str, tmp_path: Path) -> None:
    recipe = tiny_stage.recipe(name).model_copy(update={"peft": tiny_stage.adapter()})
    summary = tiny_stage.train(tmp_path, recipe, TALKS)
    assert summary["trained"] < summary["parameters"]
    assert summary["left_out"] == {}


@pytest.mark.parametrize("name", ["dpo", "orpo"])
def test_faults_of_a_pair(name: str) -> None:
    assert fault(name, prompt="a", chosen="b", rejected="c") == ""
    assert fault(name, prompt="a", chosen="b") == "missing_column"
    assert fault(name, chosen="b", rejected="c") == "missing_column"
    assert fault(name, prompt="a", chosen="b", rejected=" ") == "empty"
    assert fault(name, prompt=" ", chosen="b", rejected="c") == "empty"
    assert fault(name, prompt="a", chosen="b", rejected="b ") == "equal_sides"
    said = [{"role": "assistant", "content": "x"}]
    assert fault(name, chosen=said, rejected=[{"role": "assistant", "content": "y"}]) == "no_user_turn"
    assert fault(name, chosen=[*ASK, *said], rejected=[*ASK, *said]) == "equal_sides"
    assert fault(name, chosen=[*ASK, *said], rejected=ASK) == "no_answer"


def test_faults_of_a_judgement() -> None:
    assert fault("kto", prompt="a", completion="b", label="True") == ""
    assert fault("kto", prompt="a", chosen="b", rejected="c") == ""
    assert fault("kto", prompt="a", completion="b") == "missing_column"
    assert fault("kto", prompt="a", completion="b", label="good") == "label_not_boolean"
    assert fault("kto", messages=ASK, label="true") == "no_answer"
    assert fault("kto", messages=[{"role": "assistant", "content": "x"}], label="true") == "no_user_turn"


def test_judged_answers_learn(tmp_path: Path) -> None:
    rows = [
        Record(str(i), prompt="is it?", completion="yes" if i % 2 else "no", label=str(bool(i % 2))) for i in range(16)
    ]
    tiny_stage.train(tmp_path, tiny_stage.recipe("kto"), rows)
    curve = json.loads((tmp_path / "out/history.json").read_text())
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.parametrize("name", ["dpo", "kto", "orpo"])
def test_long_rows_are_left_out(name: str, tmp_path: Path) -> None:
    long = Record("long", prompt="is it?", chosen="yes " * 60, rejected="no")
    stage = tiny_stage.stage(name, [*PAIRS, long], tmp_path)
    made = method(stage.config).make(stage)
    assert [(row.id, row.reason) for row in made.left_out] == [("long", "too_long")]
    with pytest.raises(TrainingError, match="too_long"):
        method(stage.config).make(replace(stage, rows=[long]))


def test_a_prompt_is_what_evaluation_asks(tmp_path: Path) -> None:
    stage = tiny_stage.stage("dpo", PAIRS, tmp_path)
    made = method(stage.config).make(stage)
    row, model = made.inputs["train_dataset"][0], tiny_stage.base()
    assert row["prompt_ids"] == decoder_model.questions(model, ["is 0 good?"])[0].tolist()
    assert row["chosen_ids"] == decoder_model.answers(model, ["yes it is"])[0].tolist()


def test_kto_needs_a_batch_of_two(tmp_path: Path) -> None:
    alone = tiny_stage.stage("kto", PAIRS, tmp_path, per_device_train_batch_size=1)
    with pytest.raises(TrainingError, match="at least 2"):
        method(alone.config).make(alone)


def test_the_table_knows_them_all() -> None:
    assert {"dpo", "kto", "orpo", "grpo", "distill"} <= METHODS.keys()
