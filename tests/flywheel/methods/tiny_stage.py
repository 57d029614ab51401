"""A second stage on a tiny language model, run as a whole, or killed and resumed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flywheel import training
from flywheel.artifact import sha256
from flywheel.methods.base import Stage
from flywheel.modalities.base import Model
from flywheel.modalities.text_causal import TextCausal
from flywheel.progress import silent
from flywheel.recipe import Recipe
from flywheel.recipe_train import Peft
from flywheel.record import Record, write_rows

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["flywheel.training", "flywheel.methods.grpo_trainer"])
TEXT = "is it good or bad? yes it is, no it is not, never, always. " * 4


def recipe(method: str, **changes: Any) -> Recipe:
    stage = {
        "method": method, "max_steps": 12, "per_device_train_batch_size": 4, "max_length": 64, "save_steps": 3,
        "logging_steps": 2, "warmup_steps": 1, "learning_rate": 0.003, "torch_compile": False, "bf16": False,
    }  # fmt: skip
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "seed": 7,
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {
                "modality": "text_causal", "tokenizer": {"vocab_size": 300}, "hidden_size": 32, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
                "max_position_embeddings": 128,
            },
            "finetune": stage | changes,
        }
    )  # fmt: skip


def adapter() -> Peft:
    return Peft(r=4, lora_alpha=8)


def base(seed: int = 7) -> Model:
    made = recipe("dpo").model_copy(update={"seed": seed})
    return TextCausal().build(made, [Record("0", text=TEXT)])


def checkpoint(directory: Path, seed: int = 7) -> Path:
    """The model that a stage starts from, or a teacher."""
    TextCausal().save(base(seed), directory)
    return directory


def stage(method: str, rows: Sequence[Record], work: Path, **changes: Any) -> Stage:
    config = recipe(method, **changes).finetune
    assert config is not None
    return Stage(TextCausal(), base(), config, 7, rows, (), (), work)


def train(root: Path, chosen: Recipe, rows: Sequence[Record], kill_at: int = 0) -> dict[str, Any]:
    """Run the stage in `root`; with `kill_at`, until the process kills itself after so many steps."""
    data, start = root / "rows", root / "start"
    if not start.exists():
        (root / "work").mkdir(parents=True)
        data.mkdir()
        checkpoint(start)
        write_rows(data / "finetune_train.parquet", rows)
        write_rows(data / "finetune_heldout.parquet", rows[:4])

    def beat(step: int) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return training.train(chosen, "finetune", data, start, root / "out", root / "work", silent, beat)


def resumed_equals_whole(root: Path, chosen: Recipe, rows: Sequence[Record], kills: Sequence[int]) -> bool:
    """Whether a run that is killed after each of these steps ends with the weights of one that is not."""
    train(root / "whole", chosen, rows)
    for step in kills:
        child = FORK.Process(target=train, args=(root / "killed", chosen, rows, step))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL, child.exitcode
    train(root / "killed", chosen, rows)
    return weights(root / "whole") == weights(root / "killed")


def weights(root: Path) -> str:
    return sha256(root / "out" / "model" / "model.safetensors")
