"""The reward room, its method, and what TRL makes of a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from flywheel.errors import TrainingError
from flywheel.methods.base import Stage
from flywheel.methods.reward import Reward
from flywheel.methods.rows_fault import fault_of
from flywheel.modalities.base import Model
from flywheel.modalities.rooms import room as room_of
from flywheel.modalities.text_reward import TextReward, pairs
from flywheel.recipe import Recipe
from flywheel.recipe_train import Reward as Config
from flywheel.record import Record

COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected", "text")
ROWS = [Record(f"a{i}", prompt=f"{i} + {i}?", chosen=f"It is {2 * i}.", rejected=f"No idea {i}.") for i in range(6)]
HI = [{"role": "user", "content": "Hi"}]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("Good day", "What"))
TALK = Record("c", messages=HI, chosen=GOOD, rejected=BAD)
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


def recipe(**model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "preference_accuracy"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": "text_reward", "tokenizer": {"vocab_size": 320}, **SIZES, **model},
            "train": {"method": "reward"},
        }
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return TextReward().build(recipe(), ROWS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"prompt": None}, ""),
        ({"rejected": None}, "missing_column"),
        ({"chosen": None}, "missing_column"),
        ({"chosen": "No idea 0. "}, "equal_sides"),
        ({"rejected": " "}, "empty"),
    ],
)
def test_rows_that_are_no_preference_have_a_reason(changes: dict[str, Any], reason: str, model: Model) -> None:
    row = ROWS[0].with_fields(**changes)
    assert fault_of("reward", COLUMNS)(row) == reason
    left_out = TextReward().encode(model, [row, ROWS[1]], 32).left_out  # type: ignore[attr-defined]
    assert [one.reason for one in left_out] == ([reason] if reason else [])


def test_pairs_that_are_too_long_are_left_out(model: Model) -> None:
    features = TextReward().encode(model, [ROWS[0], ROWS[1].with_fields(chosen="long " * 40)], 32)
    assert len(features) == 1  # type: ignore[arg-type]
    (left,) = features.left_out  # type: ignore[attr-defined]
    assert (left.id, left.reason) == ("a1", "too_long")


def test_a_text_and_a_one_turn_question_are_read_whole(model: Model) -> None:
    found, left_out = pairs(model, [ROWS[0], TALK])
    assert not left_out
    assert model.processor.decode(found[0].chosen) == "0 + 0?<|answer|>It is 0."
    assert [model.processor.decode(found[1].rejected)] == [
        model.processor.apply_chat_template([*HI, *BAD], tokenize=False)
    ]


def test_centering_adds_what_the_sum_of_a_pair_costs(model: Model) -> None:
    room = TextReward()
    features = room.encode(model, ROWS, 32)
    batch = room.collate([features[i] for i in range(6)])
    with torch.no_grad():
        both = model.module.eval()(batch["input_ids"].flatten(0, 1), batch["attention_mask"].flatten(0, 1)).logits
        plain, held = (r.losses(model.module, batch)[""] for r in (room, TextReward(0.5)))
    chosen, rejected = both.view(-1, 2).unbind(1)
    torch.testing.assert_close(plain, (1 + (rejected - chosen).exp()).log().mean())
    torch.testing.assert_close(held - plain, 0.5 * (chosen + rejected).square().mean())


def test_the_method_is_for_this_room_alone(model: Model, tmp_path: Path) -> None:
    config = Config(method="reward", center_rewards_coefficient=0.01, max_length=32, torch_compile=False)
    stage = Stage(TextReward(), model, config, 0, ROWS, (), (), tmp_path)
    made = Reward().make(stage)
    assert made.objective is not None
    with pytest.raises(TrainingError, match="text_reward"):
        Reward().make(Stage(room_of("text_causal"), model, config, 0, ROWS, (), (), tmp_path))


def test_a_language_model_becomes_a_reward_model(model: Model, tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=320, bos_token_id=0, eos_token_id=0, **SIZES)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "lm")
    model.processor.save_pretrained(tmp_path / "lm")
    room, made = TextReward(), recipe(path=str(tmp_path / "lm"))
    first, again = (room.build(made, []) for _ in range(2))
    other = room.build(made.model_copy(update={"seed": 1}), [])
    (prompt,) = room.prompts(first, ROWS, 1)
    scores = [room.predictor(m).forward(prompt) for m in (first, again, other)]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_trl_scores_with_a_saved_model_as_the_room_does(model: Model, tmp_path: Path) -> None:
    room = TextReward()
    room.save(model, tmp_path)
    reward = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["0 + 0?<|answer|>It is 0.", tokenizer.apply_chat_template([*HI, *GOOD], tokenize=False)]
    inputs = tokenizer(
        text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
    )  # as GRPOTrainer asks
    with torch.inference_mode():
        theirs = reward(**inputs).logits[:, 0].double().numpy()
    ours = room.predictor(model).scores([pair.chosen for pair in pairs(model, [ROWS[0], TALK])[0]])
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_the_longer_answer_is_the_baseline(model: Model) -> None:
    rows = [Record("0", chosen="longer", rejected="short"), Record("1", chosen="a", rejected="bc")]
    assert TextReward().baselines(model, rows, rows) == {"preference_accuracy": 0.5}


def test_real_preferences_are_pairs(model: Model) -> None:
    from flywheel.sources.columns import record_fields

    file = Path(__file__).parents[2] / "../shared/data/preferences.json"
    if not file.exists():
        pytest.skip("the preference data is not here")
    rows = [Record(str(i), **record_fields(cells, {})[0]) for i, cells in enumerate(json.loads(file.read_text())[:20])]
    found, left_out = pairs(model, rows)
    assert len(found) + len(left_out) == 20
    assert len(found) > 10
