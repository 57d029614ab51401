"""Group relative policy optimization: rewards rise, and a killed run ends with the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.errors import TrainingError
from flywheel.methods.rows_fault import fault_of
from flywheel.methods.table import method
from flywheel.record import Record
from tests.flywheel.methods import tiny_stage

COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected", "text")
ROWS = [Record(str(i), prompt=f"say {i}", completion="yes") for i in range(6)]
DRAWN = {
    "num_generations": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
    "max_completion_length": 6, "reward_funcs": [{"python": {"file": "vowels.py", "function": "vowels"}}],
}  # fmt: skip
VOWELS = "def vowels(prompts, completions, **columns):\n    return [text.count('e') / 6 for text in completions]\n"


@pytest.fixture(autouse=True)
def vowels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vowels.py").write_text(VOWELS)
    monkeypatch.setitem(
        DRAWN, "reward_funcs", [{"python": {"file": str(tmp_path / "vowels.py"), "function": "vowels"}}]
    )


def test_resumes_to_the_bit(tmp_path: Path) -> None:
    recipe = tiny_stage.recipe("grpo", **DRAWN, beta=0.1, eval_steps=6, max_steps=6, save_steps=2)
    assert tiny_stage.resumed_equals_whole(tmp_path, recipe, ROWS, kills=(3,))


def test_rewards_rise(tmp_path: Path) -> None:
    drawn = DRAWN | {"num_generations": 8, "per_device_train_batch_size": 8}
    recipe = tiny_stage.recipe("grpo", **drawn, eval_steps=15, max_steps=30, learning_rate=0.02, save_steps=50)
    tiny_stage.train(tmp_path, recipe, ROWS)
    curve = json.loads((tmp_path / "out/history.json").read_text())
    minus_rewards = [point["eval_loss"] for point in curve if "eval_loss" in point]
    assert minus_rewards[-1] < minus_rewards[0] - 0.1


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    config = tiny_stage.recipe("grpo", **DRAWN).finetune
    assert config is not None
    grpo = method(config)
    fault = fault_of("grpo", COLUMNS)
    assert fault(Record("0", prompt="a")) == ""
    assert fault(Record("0", text="a")) == "missing_column"
    assert fault(Record("0", prompt=" ")) == "empty"
    assert fault(Record("0", messages=[{"role": "assistant", "content": "x"}])) == "no_user_turn"
    rows = [*ROWS, Record("long", prompt="say " * 60)]
    made = grpo.make(tiny_stage.stage("grpo", rows, tmp_path, **DRAWN))
    assert [(row.id, row.reason) for row in made.left_out] == [("long", "too_long")]


def test_groups_are_whole(tmp_path: Path) -> None:
    odd = tiny_stage.stage("grpo", ROWS, tmp_path, **(DRAWN | {"num_generations": 3}))
    with pytest.raises(TrainingError, match="multiple of num_generations"):
        method(odd.config).make(odd)


def test_the_loss_is_scaled_for_accumulated_batches_once() -> None:
    from trl import GRPOTrainer

    from flywheel.loop import Exact

    assert type("Both", (Exact, GRPOTrainer), {}).loss_is_scaled_for_ga is GRPOTrainer.loss_is_scaled_for_ga is True
