"""Training learns, repeats itself to the bit, survives being killed at any moment, and stops at a loss that is none."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flywheel import checkpoint, loop, training
from flywheel.artifact import sha256
from flywheel.errors import TrainingError
from flywheel.methods.rows import Batches
from flywheel.modalities.rooms import ROOMS
from flywheel.progress import silent
from flywheel.recipe import Recipe
from flywheel.record import Record, write_rows
from flywheel.watch import RolledBack

FORK = multiprocessing.get_context("forkserver")
TINY = replace(ROOMS["text_causal"], module="tiny_room", name="TinyRoom")
FORK.set_forkserver_preload(["flywheel.training", "flywheel.adapters", "peft"])


def recipe(**changes: Any) -> Recipe:
    stage = {
        "max_steps": 24, "per_device_train_batch_size": 4, "max_length": 16, "save_steps": 5, "logging_steps": 3,
        "warmup_steps": 2, "learning_rate": 0.02, "torch_compile": False, "optim": "muon",
    }  # fmt: skip
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "seed": 7,
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": "text_causal"},
            "train": stage | changes,
            "finetune": stage | {"max_steps": 10, "replay": 0.3, "learning_rate": 0.005},
            "peft": {"r": 4, "lora_alpha": 8, "target_modules": ["hidden"]},
        }
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    directory = tmp_path / "rows"
    directory.mkdir()
    text = "the wheel turns and the wheel returns. " * 8
    write_rows(directory / "train.parquet", [Record(id=str(i), text=text) for i in range(4)])
    pairs = [Record(id=str(i), prompt="turn ", completion="wheel turns ") for i in range(60)]
    write_rows(directory / "finetune_train.parquet", pairs)
    return directory


@pytest.fixture(autouse=True)
def tiny_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROOMS, "text_causal", TINY)


def run(root: Path, rows: Path, **changes: Any) -> dict[str, Any]:
    root.mkdir(exist_ok=True)
    (root / "work").mkdir(exist_ok=True)
    return training.train(recipe(**changes), "train", rows, None, root / "out", root / "work", silent)


def stopped_run(root: Path, rows: Path, after: int, **changes: Any) -> None:
    """Ask a run to end after so many steps."""
    (root / "work").mkdir(parents=True)

    def beat(step: int) -> None:
        if step == after:
            loop.STOP.set()

    try:
        with pytest.raises(loop.Stopped):
            training.train(recipe(**changes), "train", rows, None, root / "out", root / "work", silent, beat)
    finally:
        loop.STOP.clear()


def child(root: Path, rows: Path, start: Path | None, moment: tuple[str, int] | None) -> None:
    """One stage in a process of its own, which kills itself at a step, or at a call of fsync inside a save."""
    ROOMS["text_causal"] = TINY
    count = 0

    def die() -> None:
        nonlocal count
        count += 1
        if moment and count == moment[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    def progress(done: int, total: int, figures: Any) -> None:
        if moment and moment[0] == "progress":
            die()

    fsync = os.fsync
    if moment and moment[0] == "fsync":
        os.fsync = lambda handle: (die(), fsync(handle))[1]
    stage = "train" if start is None else "finetune"
    training.train(recipe(), stage, rows, start, root / "out", root / "work", progress)  # type: ignore[arg-type]


def spawn(*arguments: Any) -> int | None:
    process = FORK.Process(target=child, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def digests(out: Path) -> tuple[str, str]:
    return sha256(out / "model" / "model.safetensors"), sha256(out / "history.json")


def test_the_loss_falls_and_the_summary_says_so(tmp_path: Path, rows: Path) -> None:
    summary = run(tmp_path / "a", rows)
    history = json.loads((tmp_path / "a/out/history.json").read_text())
    assert [e["step"] for e in history] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert summary["loss"] == history[-1]["loss"]
    assert summary["tokens_per_second"] > 0
    assert len(list((tmp_path / "a/work").glob("checkpoint-*"))) == 2


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path, rows: Path) -> None:
    whole = tmp_path / "whole"
    for stage, start in (("train", None), ("finetune", whole / "train/out/model")):
        (whole / stage / "work").mkdir(parents=True)
        assert spawn(whole / stage, rows, start, None) == 0
    draw = random.Random(2)
    moments = [("progress", draw.randint(1, 6)) for _ in range(3)] + [("fsync", draw.randint(1, 16)) for _ in range(7)]
    for stage, start in (("train", None), ("finetune", whole / "train/out/model")):
        killed = tmp_path / "killed" / stage
        (killed / "work").mkdir(parents=True)
        mine = moments[::2] if stage == "train" else [(kind, 1 + at // 3) for kind, at in moments[1::2]]
        codes = [spawn(killed, rows, start, moment) for moment in mine]
        assert codes.count(-signal.SIGKILL) >= 4
        assert spawn(killed, rows, start, None) == 0
        assert digests(killed / "out") == digests(whole / stage / "out")


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, rows: Path) -> None:
    run(tmp_path / "a", rows)
    expected = digests(tmp_path / "a/out")
    newest = tmp_path / "a/work/checkpoint-24/model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    run(tmp_path / "a", rows)
    assert digests(tmp_path / "a/out") == expected


def test_finished_steps_are_not_run_again(tmp_path: Path, rows: Path) -> None:
    run(tmp_path / "a", rows)
    expected = digests(tmp_path / "a/out")
    assert run(tmp_path / "a", rows)["tokens_per_second"] == 0
    assert digests(tmp_path / "a/out") == expected


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROOMS, "text_causal", replace(TINY, name="BrokenRoom"))
    with pytest.raises(RolledBack, match="step 1"):
        run(tmp_path / "a", rows)
    with pytest.raises(TrainingError, match="step 2") as caught:  # going back did not help
        run(tmp_path / "a", rows)
    assert "learning_rate" in caught.value.remedy


def test_the_rows_of_a_sudden_loss_are_skipped_and_told(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"max_steps": 40, "save_steps": 10, "torch_compile": False}
    quiet = run(tmp_path / "quiet", rows, **changes)
    assert quiet["skipped"] == []
    monkeypatch.setitem(ROOMS, "text_causal", replace(TINY, name="SpikingRoom"))
    with pytest.raises(RolledBack, match="step 33"):
        run(tmp_path / "a", rows, **changes)
    assert checkpoint.newest(tmp_path / "a/work") == (30, tmp_path / "a/work/checkpoint-30")
    summary = run(tmp_path / "a", rows, **changes)
    assert [skip["step"] for skip in summary["skipped"]] == [33]
    assert summary["skipped"][0]["loss"] > 3 * summary["skipped"][0]["median"] > 0
    assert digests(tmp_path / "a/out")[0] != digests(tmp_path / "quiet/out")[0]


def test_the_average_of_the_weights_is_the_result_and_survives_a_stop(tmp_path: Path, rows: Path) -> None:
    run(tmp_path / "plain", rows)
    run(tmp_path / "whole", rows, ema_decay=0.9)
    assert digests(tmp_path / "whole/out")[0] != digests(tmp_path / "plain/out")[0]
    stopped_run(tmp_path / "stopped", rows, 12, ema_decay=0.9)
    run(tmp_path / "stopped", rows, ema_decay=0.9)
    assert digests(tmp_path / "stopped/out") == digests(tmp_path / "whole/out")


def test_asked_to_stop_it_leaves_a_checkpoint_and_continues(tmp_path: Path, rows: Path) -> None:
    run(tmp_path / "whole", rows)
    stopped_run(tmp_path / "stopped", rows, 7)
    assert checkpoint.newest(tmp_path / "stopped/work") == (7, tmp_path / "stopped/work/checkpoint-7")
    run(tmp_path / "stopped", rows)
    assert digests(tmp_path / "stopped/out") == digests(tmp_path / "whole/out")


MEASURED = {"eval_steps": 4, "early_stopping_patience": 2, "load_best_model_at_end": True, "learning_rate": 0.2}


def test_the_best_checkpoint_is_the_result_and_no_better_one_ends_training(tmp_path: Path, rows: Path) -> None:
    write_rows(rows / "heldout.parquet", [Record(id="h", text="a stone rests. " * 9)])
    summary = run(tmp_path / "a", rows, **MEASURED)
    history = json.loads((tmp_path / "a/out/history.json").read_text())
    losses = {point["step"]: point["eval_loss"] for point in history if "eval_loss" in point}
    best = min(losses, key=lambda step: losses[step])
    assert summary["steps"] == history[-1]["step"] == best + 8 < 24
    found = load_file(tmp_path / "a/out/model/model.safetensors")
    kept = load_file(tmp_path / f"a/work/checkpoint-{best}/model.safetensors")
    assert all(torch.equal(found[name], kept[f"module.{name}"]) for name in found)
    stopped_run(tmp_path / "b", rows, 5, **MEASURED)
    run(tmp_path / "b", rows, **MEASURED)
    assert digests(tmp_path / "b/out") == digests(tmp_path / "a/out")


def test_epochs_say_how_many_steps(tmp_path: Path, rows: Path) -> None:
    # Four texts of 312 bytes are 78 rows of 16, in batches of 4.
    assert run(tmp_path / "a", rows, num_train_epochs=0.5)["steps"] == 10


def test_batches_are_the_same_with_and_without_loader_processes(tmp_path: Path, rows: Path) -> None:
    run(tmp_path / "a", rows)
    run(tmp_path / "b", rows, dataloader_num_workers=2)
    assert digests(tmp_path / "a/out") == digests(tmp_path / "b/out")


def test_without_rows_the_error_names_them(tmp_path: Path, rows: Path) -> None:
    write_rows(rows / "train.parquet", [])
    with pytest.raises(TrainingError, match="rows of train"):
        run(tmp_path / "a", rows)


def test_replay_is_spread_evenly_and_every_pass_sees_every_feature() -> None:
    config = recipe().finetune
    assert config is not None
    mine, replayed = [{"from": i} for i in range(10)], [{"from": 100 + i} for i in range(6)]
    batches = Batches(mine, config, 40, 0, replayed)  # type: ignore[arg-type]
    drawn = [batches[i]["from"] for i in range(len(batches))]
    assert len(drawn) == 40
    assert [b for b in range(10) if drawn[4 * b] >= 100] == [3, 6, 9]
    own = [i for i in drawn if i < 100]
    assert sorted(own[:10]) == sorted(own[10:20]) == list(range(10))
    assert own[:10] != own[10:20]
