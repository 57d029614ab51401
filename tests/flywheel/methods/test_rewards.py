"""Rewards: what an answer is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import RecipeError, TrainingError
from flywheel.methods import rewards


def worth(argument: Any, text: str, reference: str | None = None, tokens: int = 1) -> float | None:
    (reward,) = rewards.build([argument])
    (found,) = reward(["def f():"], [text], completion_ids=[[0] * tokens], completion=[reference], label=[None])
    return found


@pytest.mark.parametrize(
    ("argument", "text", "reference", "wanted"),
    [
        ("exact_match", " yes\n", "yes", 1),
        ("exact_match", "Yes", "yes", 0),
        ({"exact_match": {"ignore_case": True}}, "Yes", "yes", 1),
        ("exact_match", "yes", None, None),
        ("number_match", "so it is 1,024.", "#### 1024", 1),
        ("number_match", "12, no 13", "12", 0),
        ("number_match", "12", "none", None),
        ("rouge_l", "the cat sat", "the cat sat", 1),
        ({"regex_match": {"pattern": "^a+$"}}, "aaa", None, 1),
        ({"regex_match": {"pattern": "^a+$"}}, "ab", None, 0),
        ("contains", "I say yes", "yes", 1),
        ({"contains": {"text": "no"}}, "I say yes", "yes", 0),
        ("parses", "x = 1", None, 1),
        ("parses", "x = (", None, 0),
        ("parses", " ", None, 0),
        ({"parses": {"with_prompt": True}}, " pass", None, 1),
        ("json_valid", '{"a": 1}', None, 1),
        ("json_valid", "{a}", None, 0),
        ({"json_valid": {"required": ["b"]}}, '{"a": 1}', None, 0),
        ("json_valid", "[" * 100_000, None, 0),
    ],
)
def test_worth(argument: Any, text: str, reference: str | None, wanted: float | None) -> None:
    assert worth(argument, text, reference) == wanted


def test_length_in_tokens() -> None:
    argument = {"length": {"min_tokens": 4, "max_tokens": 10}}
    assert [worth(argument, "", tokens=n) for n in (2, 4, 10, 15, 30)] == [0.5, 1, 1, 0.5, 0]


def test_a_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def short(prompts, completions, **columns):\n    return [1 / len(c) for c in completions]\n")
    own: Any = {"python": {"file": str(file), "function": "short"}}
    assert worth(own, "ab") == 0.5
    assert rewards.build([own])[0].__name__ == "short"
    assert list(rewards.files([own, "parses"])) == [file]
    with pytest.raises(TrainingError, match="ZeroDivisionError"):
        worth(own, "")
    file.write_text("def short(prompts, completions, **columns):\n    return []\n")
    with pytest.raises(TrainingError, match="one for each answer"):
        worth(own, "ab")
    with pytest.raises(TrainingError, match="AttributeError"):
        rewards.build([{"python": {"file": str(file), "function": "long"}}])


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("exact_mach", "did you mean exact_match"),
        ({"exact_match": {"case": True}}, "case"),
        ("regex_match", "pattern"),
        ({"regex_match": {"pattern": "("}}, "unterminated"),
    ],
)
def test_what_does_not_exist(argument: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        rewards.check([argument])


def test_a_reward_model(tmp_path: Path) -> None:
    from flywheel.modalities.text_reward import TextReward
    from flywheel.recipe import Recipe
    from flywheel.record import Record

    recipe = Recipe.model_validate(
        {
            "name": "judge",
            "objective": {"metric": "preference_accuracy"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {
                "modality": "text_reward", "tokenizer": {"vocab_size": 300}, "hidden_size": 32,
                "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            },
            "train": {"method": "reward"},
        }
    )  # fmt: skip
    room = TextReward()
    rows = [Record("0", prompt="is it?", chosen="yes", rejected="no")]
    room.save(room.build(recipe, rows), tmp_path / "judge")
    (judge,) = rewards.build([{"model": {"path": str(tmp_path / "judge")}}])
    asked = ["is it?", [{"role": "user", "content": "is it?"}]]
    found = judge(asked, ["yes", "yes"], completion_ids=[[1], [1]], completion=[None] * 2, label=[None] * 2)
    assert all(isinstance(value, float) for value in found)
    assert found == judge(asked, ["yes", "yes"], completion_ids=[[1], [1]], completion=[None] * 2, label=[None] * 2)
    assert tmp_path / "judge" / "model.safetensors" in set(
        rewards.files([{"model": {"path": str(tmp_path / "judge")}}])
    )
