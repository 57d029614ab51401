"""Training in processes of its own: alone and together, killed, hung, rolled back, and told about."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flywheel import training
from flywheel.artifact import sha256
from flywheel.errors import TrainingError
from flywheel.launch import Devices, Job, launch
from flywheel.progress import silent
from flywheel.recipe import Recipe
from flywheel.record import Record, write_rows

STEPS = 30


def recipe(**changes: Any) -> Recipe:
    stage = {
        "max_steps": STEPS, "per_device_train_batch_size": 2, "max_length": 32, "save_steps": 8, "logging_steps": 5,
        "warmup_steps": 2, "torch_compile": False,
    }  # fmt: skip
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {
                "modality": "text_causal", **sizes, "num_key_value_heads": 1, "max_position_embeddings": 32,
                "tokenizer": {"vocab_size": 300},
            },
            "train": stage | changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rows")
    texts = [f"The {i}th wheel turns, and the {i + 1}th returns. " * 6 for i in range(12)]
    write_rows(directory / "train.parquet", [Record(id=str(i), text=text) for i, text in enumerate(texts)])
    return directory


def job(root: Path, rows: Path, **changes: Any) -> Job:
    (root / "out").mkdir(parents=True, exist_ok=True)
    return Job(recipe(**changes), "train", rows, None, root / "out", root / "work", root / "compiled")


def weights(root: Path) -> str:
    return sha256(root / "out/model/model.safetensors")


@pytest.fixture(scope="module")
def alone(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that this very process makes, in one go."""
    root = tmp_path_factory.mktemp("alone")
    made = job(root, rows)
    made.work.mkdir()
    training.train(made.recipe, "train", rows, None, made.out, made.work, silent)
    return weights(root)


@pytest.fixture(scope="module")
def together(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that two processes make, in one go."""
    root = tmp_path_factory.mktemp("together")
    summary = launch(job(root, rows), Devices(processes=2), silent)
    assert summary["steps"] == STEPS
    return weights(root)


def kill_at(root: Path, step: int, sign: signal.Signals = signal.SIGKILL, which: int = 0) -> threading.Thread:
    """Send a signal to the `which`th training process as soon as it has told so many steps."""

    def watch() -> None:
        told = root / "work/told.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if told.exists() and f'{{"step": {step}}}' in told.read_text():
                break
            time.sleep(0.005)
        ranks = sorted(pid for pid in training_processes(root))
        os.kill(ranks[which], sign)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def training_processes(root: Path) -> list[int]:
    """Processes that train in a directory, the one that starts the others first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "flywheel.training_worker" in command and str(root / "work/spec.json") in command:
                found.append(int(entry.name))
    return found


def test_a_process_of_its_own_gives_the_same_bytes_and_tells_how_it_goes(
    tmp_path: Path, rows: Path, alone: str
) -> None:
    heard: list[tuple[int, int, Mapping[str, float]]] = []
    summary = launch(job(tmp_path, rows), Devices(), lambda *said: heard.append(said))
    assert weights(tmp_path) == alone
    assert [(done, total) for done, total, _ in heard] == [(i, STEPS) for i in range(5, STEPS + 1, 5)]
    assert heard[-1][2].keys() >= {"loss", "grad_norm", "learning_rate", "tokens_per_second"}
    assert summary["steps"] == STEPS


def test_killed_it_is_started_again_and_ends_with_the_same_bytes(tmp_path: Path, rows: Path, alone: str) -> None:
    killer = kill_at(tmp_path, 18)
    launch(job(tmp_path, rows), Devices(), silent)
    killer.join()
    assert weights(tmp_path) == alone


def test_killed_without_ever_getting_further_it_is_an_error(tmp_path: Path, rows: Path) -> None:
    made = job(tmp_path, rows)
    made.work.mkdir()
    (made.work / "skips.json").write_text("no JSON")
    with pytest.raises(TrainingError, match=r"JSONDecodeError"):
        launch(made, Devices(), silent)


def test_asked_to_end_it_leaves_a_checkpoint_behind(tmp_path: Path, rows: Path, alone: str) -> None:
    class Enough(Exception):
        pass

    def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
        if done == 10:
            raise Enough

    with pytest.raises(Enough):
        launch(job(tmp_path, rows), Devices(), progress)
    assert training_processes(tmp_path) == []
    left = [p.name for p in (tmp_path / "work").glob("checkpoint-*")]
    assert left
    launch(job(tmp_path, rows), Devices(), silent)
    assert weights(tmp_path) == alone


@pytest.mark.slow
def test_a_hung_process_is_ended_and_started_again(tmp_path: Path, rows: Path, alone: str) -> None:
    stopper = kill_at(tmp_path, 18, signal.SIGSTOP)
    launch(job(tmp_path, rows, hang_seconds=10), Devices(), silent)
    stopper.join()
    assert weights(tmp_path) == alone


def test_two_processes_that_lose_one_end_with_the_same_bytes(tmp_path: Path, rows: Path, together: str) -> None:
    killer = kill_at(tmp_path, 18, which=2)
    launch(job(tmp_path, rows), Devices(processes=2), silent)
    killer.join()
    assert weights(tmp_path) == together


@pytest.mark.slow
def test_two_processes_share_the_weights_out(tmp_path: Path, rows: Path, together: str) -> None:
    made = job(tmp_path, rows)
    shared = made.recipe.model_copy(update={"resources": made.recipe.resources.model_copy(update={"strategy": "fsdp"})})
    killer = kill_at(tmp_path, 18, which=1)
    launch(Job(shared, "train", rows, None, made.out, made.work, made.kept), Devices(processes=2), silent)
    killer.join()
    assert (made.out / "model/model.safetensors").exists()
    curve = json.loads((made.out / "history.json").read_text())
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.slow
def test_two_machines_meet_and_give_the_bytes_of_two_processes(tmp_path: Path, rows: Path, together: str) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{found.getsockname()[1]}"
    made, summaries = job(tmp_path, rows), [dict[str, Any](), dict[str, Any]()]

    def machine(number: int) -> None:
        summaries[number] = launch(made, Devices(nodes=2, node_rank=number, endpoint=endpoint), silent)

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert summaries[0]["steps"] == STEPS
    assert summaries[1] == {}
    assert weights(tmp_path) == together
