"""Distillation: a student comes nearer to its teacher, by its logits and by its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from flywheel.errors import TrainingError
from flywheel.methods.distillation import Distilling
from flywheel.methods.table import method
from flywheel.modalities import decoder_model
from flywheel.record import Record, read_rows
from tests.flywheel.methods import tiny_stage

TEXTS = [Record(str(i), text=f"is {i} good or bad? yes it is, no it is not, never. " * 3) for i in range(12)]
ASKED = [Record(str(i), prompt=f"is {i} good?") for i in range(8)]


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return str(tiny_stage.checkpoint(tmp_path / "teacher", seed=3))


def test_logits_resume_to_the_bit_and_come_nearer(tmp_path: Path, teacher: str) -> None:
    recipe = tiny_stage.recipe("distill", teacher=teacher, alpha=1.0, temperature=2.0, eval_steps=6)
    assert tiny_stage.resumed_equals_whole(tmp_path, recipe, TEXTS, kills=(4,))
    curve = json.loads((tmp_path / "whole/out/history.json").read_text())
    gaps = [point["eval_loss"] for point in curve if "eval_loss" in point]
    assert gaps[-1] < gaps[0]
    kept = decoder_model.open_checkpoint(str(tmp_path / "whole/out/model"))
    assert not any("teacher" in name for name in kept.module.state_dict())


@pytest.mark.parametrize("chunk", [2**22, 4096])
def test_loss_is_that_of_whole_logits(chunk: int, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flywheel.methods.distillation.CHUNK", chunk)
    config = tiny_stage.recipe("distill", teacher=teacher, alpha=0.3, temperature=2.0).finetune
    student, master = tiny_stage.base().module, decoder_model.open_checkpoint(teacher).module
    ids = torch.randint(0, len(tiny_stage.base().processor), (2, 32), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids.clone(), "position_ids": torch.arange(32).repeat(2, 1)}
    batch["labels"][:, :9] = -100
    loss = Distilling(student, master, config)(**batch)  # type: ignore[arg-type]
    loss.backward()
    gradient = student.get_input_embeddings().weight.grad.clone()  # type: ignore[operator]
    student.zero_grad()

    mine, its = (m(input_ids=ids).logits[:, :-1].flatten(0, 1) for m in (student, master))
    labels = batch["labels"][:, 1:].flatten()
    learned = labels != -100
    gap = F.kl_div((mine / 2).log_softmax(-1), (its / 2).softmax(-1), reduction="none").sum(-1)[learned].mean()
    whole = 0.3 * 4 * gap + 0.7 * F.cross_entropy(mine, labels, ignore_index=-100)
    whole.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(gradient, student.get_input_embeddings().weight.grad)  # type: ignore[operator]


def test_answers_of_a_teacher_are_learned(tmp_path: Path) -> None:
    taught = [Record(str(i), prompt=f"is {i} good?", chosen="yes", rejected="no") for i in range(8)]
    lessons = tiny_stage.recipe("orpo", max_steps=60, learning_rate=0.01, save_steps=100)
    tiny_stage.train(tmp_path / "lessons", lessons, taught)
    teacher = str(tmp_path / "lessons/out/model")
    recipe = tiny_stage.recipe("distill", teacher=teacher, level="sequence", temperature=0.001)
    summary = tiny_stage.train(tmp_path / "student", recipe, ASKED)
    answers = list(read_rows(tmp_path / "student/work/answers.parquet"))
    assert {row.completion for row in answers} == {"yes"}
    assert summary["left_out"] == {}
    curve = json.loads((tmp_path / "student/out/history.json").read_text())
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_endless_answers_are_left_out(tmp_path: Path, teacher: str) -> None:
    recipe = tiny_stage.recipe("distill", teacher=teacher, level="sequence", temperature=0.001)
    with pytest.raises(TrainingError, match="answers that end"):
        tiny_stage.train(tmp_path, recipe, ASKED)


def test_another_tokenizer_is_refused(tmp_path: Path, teacher: str) -> None:
    file = Path(teacher) / "tokenizer.json"
    changed = json.loads(file.read_text())
    vocabulary = changed["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(changed))
    config = tiny_stage.recipe("distill", teacher=teacher).finetune
    assert config is not None
    with pytest.raises(TrainingError, match="2 of them other ones"):
        method(config).make(tiny_stage.stage("distill", TEXTS, tmp_path, teacher=teacher))
    with pytest.raises(TrainingError, match="nobody"):
        method(config).make(tiny_stage.stage("distill", TEXTS, tmp_path, teacher=str(tmp_path / "nobody")))
