from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.errors import SourceError
from flywheel.metrics.choice import Question, choice_metrics, multiple_choice, read_questions
from tests.flywheel.metrics.scripted import Scripted, exam


def written(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    return path


def test_the_names_of_the_fields(tmp_path: Path) -> None:
    file = written(
        tmp_path / "q.jsonl",
        {"query": "1 + 1 =", "choices": ["1", "2"], "gold": 1},
        {"question": "Sky?", "choices": ["green", "blue", "red"], "answer": "blue"},
        {"question": "Grass?", "choices": ["green", "blue"], "answer": "A"},
        {"question": "First letter?", "choices": ["B", "A"], "answer": "A", "source": "anything"},
    )
    assert [question.gold for question in read_questions(file)] == [1, 1, 0, 1]


@pytest.mark.parametrize(
    "line",
    [
        {"choices": ["a", "b"], "gold": 0},
        {"query": "q", "choices": ["a"], "gold": 0},
        {"query": "q", "choices": ["a", ""], "gold": 0},
        {"query": "q", "choices": ["a", 2], "gold": 0},
        {"query": "q", "choices": ["a", "b"], "gold": 2},
        {"query": "q", "choices": ["a", "b"], "gold": True},
        {"query": "q", "choices": ["a", "b"], "gold": "c"},
        {"query": "q", "choices": ["a", "b"]},
        ["q", ["a", "b"], 0],
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: object) -> None:
    file = written(tmp_path / "q.jsonl", {"query": "q", "choices": ["a", "b"], "gold": 0}, line)
    with pytest.raises(SourceError, match=r"q\.jsonl:2"):
        read_questions(file)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_any_other_file_is_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("any") / "q.jsonl"
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(SourceError):
        read_questions(file)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        read_questions(tmp_path / "nowhere.jsonl")
    with pytest.raises(SourceError, match="no questions"):
        read_questions(written(tmp_path / "q.jsonl"))


def test_accuracies_are_those_of_the_harness() -> None:
    # lm_eval/api/task.py: argmax of lls, of lls / len(choice) and of lls / len(choice.encode())
    questions = [
        Question("q", ("short", "a much longer one"), 1),  # the longer is likelier by character
        Question("q", ("ab", "我们"), 1),  # as likely by character, likelier by byte
        Question("q", ("a", "b", "c"), 2),  # equal ones: the first
    ]
    nats = [np.array([-5.0, -8.0]), np.array([-4.0, -4.0]), np.array([-1.0, -1.0, -1.0])]
    acc, norm, by_bytes, ece = choice_metrics(questions, nats, seed=0)
    assert [m.value for m in (acc, norm, by_bytes)] == pytest.approx([0, 1 / 3, 2 / 3])
    assert acc.detail["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    confidences = [1 / (1 + np.exp(-3)), 1 / 2, 1 / 3]
    assert ece.value == pytest.approx(np.mean(confidences))  # all wrong, so that confidence is the error
    assert ece.better == "lower"


def test_a_model_is_asked_for_each_choice_after_the_query(tmp_path: Path) -> None:
    file = written(
        tmp_path / "q.jsonl",
        {"query": "1 + 1 =", "choices": ["two", "eleven"], "gold": 0},
        {"query": "Sky?", "choices": ["green", "blue", "red"], "gold": 0},
    )
    found = multiple_choice(exam([], Scripted()), questions=str(file), task="tiny")
    assert [m.name for m in found] == ["tiny_acc", "tiny_acc_norm", "tiny_acc_bytes", "tiny_ece"]
    assert found[0].value == 0.5  # a character costs a nat: the shorter choice wins
    confidence = [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-1) + np.exp(-2))]
    assert found[3].value == pytest.approx((1 - confidence[0] + confidence[1]) / 2)
