"""Fifty seeded `kill -9`s of training processes: each run that was killed ends with the bytes of one that was not.

Pre-training, fine-tuning on answers, LoRA and DPO; without and with processes that load data; one process and two that
train together; killed inside a save, inside a pass over the rows past the first, and between a stage's last step and
its weights. Then every file of a newest checkpoint is harmed in three ways. Run by `make chaos`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flywheel import checkpoint, training
from flywheel.artifact import sha256
from flywheel.progress import silent
from flywheel.recipe import Recipe
from flywheel.record import Record, write_rows
from flywheel.voice import Beat, unheard

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
KILLS, SEED = 50, 11
STEPS, SAVES = 24, 7
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["flywheel.training", "flywheel.adapters", "peft", "flywheel.methods.dpo", "trl"])

STAGES: dict[str, dict[str, Any]] = {
    "pretrain": {"train": {"method": "pretrain", "ema_decay": 0.9}},
    "sft": {"train": {}, "finetune": {"method": "sft", "replay": 0.3}},
    "lora": {"train": {}, "finetune": {"method": "sft"}, "peft": {"r": 4, "lora_dropout": 0.1}},
    "dpo": {"train": {}, "finetune": {"method": "dpo", "learning_rate": 1e-3}},
}
MOMENTS = ("save: half", "save: manifest", "save: rename", "second pass", "between stages")


@dataclass(frozen=True)
class Case:
    """One kill."""

    method: str
    workers: int
    processes: int
    moment: str
    draw: int
    """Which save, or which step."""


def cases() -> list[Case]:
    rng = random.Random(SEED)
    kinds = [(m, w, p) for m in STAGES for w in (0, 2) for p in (1, 2)]
    return [
        Case(*kinds[i % len(kinds)], moment=MOMENTS[i % len(MOMENTS)], draw=rng.randrange(1000)) for i in range(KILLS)
    ]


def recipe(method: str, workers: int) -> Recipe:
    stage = {
        "max_steps": STEPS, "per_device_train_batch_size": 2, "max_length": 48, "save_steps": SAVES, "warmup_steps": 2,
        "logging_steps": 5, "torch_compile": False, "dataloader_num_workers": workers, "eval_steps": 6,
    }  # fmt: skip
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    stages = {name: value if name == "peft" else stage | value for name, value in STAGES[method].items()}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {
                "modality": "text_causal", **sizes, "num_key_value_heads": 1, "max_position_embeddings": 64,
                "tokenizer": {"vocab_size": 300},
            },
            **stages,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rows for each method; some ten rows of tokens, so that 24 steps of two are several passes."""
    texts = [Record(f"t{i}", text=f"The {i}th wheel turns, and the {i + 1}th returns.") for i in range(16)]
    pairs = [Record(f"p{i}", prompt=f"Who is {i}th?", completion=f" The {i}th wheel.") for i in range(12)]
    choices = [
        Record(f"c{i}", prompt=f"Who is {i}th?", chosen=f" The {i}th wheel.", rejected=" None.") for i in range(9)
    ]
    found = {}
    for method in STAGES:
        found[method] = directory = tmp_path_factory.mktemp(method)
        second = choices if method == "dpo" else pairs
        for name, some in (("train", texts), ("heldout", texts[:3]), ("finetune_train", second)):
            write_rows(directory / f"{name}.parquet", some)
        write_rows(directory / "finetune_heldout.parquet", second[:3])
    return found


def last_stage(method: str) -> str:
    return "finetune" if "finetune" in STAGES[method] else "train"


@dataclass(frozen=True)
class Run:
    """One stage in a directory of its own."""

    root: Path
    case: Case
    rows: Path
    start: Path | None = None


def train(run: Run, *, kill: bool = False) -> bool:
    """Train in one or two new processes, one of which may kill itself. Whether all of them ended well."""
    (run.root / "work").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(run.root / "out", ignore_errors=True)
    (run.root / "out").mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    count = run.case.processes
    victim = run.case.draw % count if run.case.moment == "second pass" else 0
    group = [FORK.Process(target=child, args=(run, kill and rank == victim, rank, port)) for rank in range(count)]
    for process in group:
        process.start()
    for process in group:
        process.join(240)
        if process.exitcode != 0:  # torchrun ends the others too
            for other in group:
                other.kill()
    assert not kill or group[victim].exitcode == -signal.SIGKILL
    return all(process.exitcode == 0 for process in group)


def child(run: Run, kill: bool, rank: int, port: int) -> None:
    case = run.case
    if case.processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": case.processes, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    beat = arm(case.moment, case.draw) if kill else unheard
    stage: Any = "finetune" if run.start else "train"
    written = recipe(case.method, case.workers)
    training.train(written, stage, run.rows, run.start, run.root / "out", run.root / "work", silent, beat)
    sys.stdout.flush()
    os._exit(0)


FILES = {"save: half": "loop-0.json", "save: manifest": checkpoint.MANIFEST, "between stages": "history.json"}
"""What is opened for writing at a moment."""


def arm(moment: str, draw: int) -> Beat:
    """Make this very process kill itself at a moment."""
    seen = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        written = event == "open" and "w" in str(args[1]) and str(args[0]).endswith(FILES.get(moment, "/"))
        renamed = event == "os.rename" and moment == "save: rename" and ".checkpoint-" in str(args[0])
        if not (written or renamed):
            return
        seen += 1
        if moment == "between stages" or seen == 1 + draw % (STEPS // SAVES):
            die()

    sys.addaudithook(audit)
    last = STEPS // 2 + draw % (STEPS // 2)
    return lambda step: die() if moment == "second pass" and step == last else None


@pytest.fixture(scope="module")
def whole(rows: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """The directory of a run that nobody kills, first stage included; made once for each kind of run."""
    made: dict[tuple[str, int, int], Path] = {}

    def run(case: Case) -> Path:
        kind = (case.method, case.workers, case.processes)
        if kind not in made:
            root = tmp_path_factory.mktemp("whole")
            assert train(Run(root / "train", case, rows[case.method]))
            if last_stage(case.method) == "finetune":
                assert train(Run(root / "finetune", case, rows[case.method], root / "train/out/model"))
            made[kind] = root
        return made[kind]

    return run


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_seeded_moment_it_ends_with_the_same_bytes(
    number: int, tmp_path: Path, rows: dict[str, Path], whole: Callable[[Case], Path]
) -> None:
    case = cases()[number]
    reference, stage = whole(case), last_stage(case.method)
    start = reference / "train/out/model" if stage == "finetune" else None
    run = Run(tmp_path, case, rows[case.method], start)
    assert not train(run, kill=True), "nothing was killed"
    assert train(run)
    for file in ("model/model.safetensors", "history.json"):
        assert sha256(tmp_path / "out" / file) == sha256(reference / stage / "out" / file)


HARMS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "deleted": lambda path: path.unlink(),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
}


def test_any_harm_to_the_newest_checkpoint_costs_one_interval(
    tmp_path: Path, rows: dict[str, Path], whole: Callable[[Case], Path]
) -> None:
    case = Case("lora", 0, 1, "second pass", draw=10)
    reference = whole(case)
    start = reference / "train/out/model"
    assert not train(Run(tmp_path / "killed", case, rows["lora"], start), kill=True)
    newest = checkpoint.newest(tmp_path / "killed/work")
    assert newest is not None
    assert newest[0] == 21
    files = sorted(str(p.relative_to(newest[1])) for p in newest[1].rglob("*") if p.is_file())
    assert len(files) >= 7, json.dumps(files)
    for file in files:
        for name, harm in HARMS.items():
            root = tmp_path / f"{file}-{name}"
            shutil.copytree(tmp_path / "killed", root)
            harm(root / "work" / newest[1].name / file)
            found = checkpoint.newest(root / "work")
            assert found is not None
            assert found[0] == newest[0] - SAVES
            assert train(Run(root, case, rows["lora"], start))
            assert sha256(root / "out/model/model.safetensors") == sha256(
                reference / "finetune/out/model/model.safetensors"
            )
