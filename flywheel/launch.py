"""Training in processes of its own: started with the right environment, followed, ended when hung, started again.

A process of its own gives back all memory, may be killed for want of memory without taking the flow with it, and sees
its devices and the settings of its allocator from its first instruction on. It is started again, and continues from its
last checkpoint, where a step was rolled back, and where it died or hung after it had got further than the time before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flywheel import checkpoint
from flywheel.errors import TrainingError
from flywheel.progress import Progress
from flywheel.recipe import Recipe, stage_of
from flywheel.training_worker import TOLD

LOG, SPEC = "training.log", "spec.json"
LOOK_SECONDS, START_SECONDS, END_SECONDS = 0.1, 3600.0, 60.0
"""Between two looks at what a process tells; until its first step, with rows to encode and a model to compile; and for
its last checkpoint when it is asked to end."""
ALLOCATOR = {
    "MALLOC_TOP_PAD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""glibc keeps freed memory for the next step, in huge pages: page faults cost a CPU a quarter of its time otherwise."""


@dataclass(frozen=True)
class Devices:
    """What a training runs on."""

    visible: tuple[str, ...] = ()
    """GPUs that it may use, by index or uuid; empty on CPUs."""
    processes: int = 1
    """On this machine, one for each device."""
    nodes: int = 1
    node_rank: int = 0
    """Number of this machine among them, from 0."""
    endpoint: str = ""
    """host:port where the machines meet; empty on one machine."""


@dataclass(frozen=True)
class Job:
    """One stage to be trained: the arguments of flywheel.training.train."""

    recipe: Recipe
    stage: Literal["train", "finetune"]
    rows: Path
    start: Path | None
    out: Path
    work: Path
    kept: Path
    """What torch.compile made and speeds that were measured, for all runs; each machine has a directory in it."""


def launch(job: Job, devices: Devices, progress: Progress) -> dict[str, Any]:
    """Train, and return the summary of flywheel.training.train; empty on other machines than the first.

    Raises TrainingError where training cannot start or go on.
    """
    _place(job, devices).mkdir(parents=True, exist_ok=True)
    got, idle = 0, 0
    while idle < 2:
        with _started(job, devices) as running:
            end = running.follow(progress)
        if "done" in end:
            return dict(end["done"])
        if "failed" in end:
            thing, found, expected, remedy = end["failed"]
            raise TrainingError(thing, found=found, expected=expected, remedy=remedy)
        if "stopped" in end:
            raise TrainingError("training", found="it was asked to end", remedy="the same command goes on")
        if "left" in end:
            return {}
        before, got = got, next((checkpoint.step(path) for path in checkpoint.all_in(job.work)), 0)
        idle = 0 if got > before or "rolled_back" in end else idle + 1
    raise TrainingError(
        "the training process",
        found=f"{end['died']}, twice without a new checkpoint\n{running.tail()}",
        expected="a process that lives",
        remedy="give it more memory where the kernel ended it, else see the lines above; the same command goes on",
    )


class Running:
    """A training process."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path, hang_seconds: float) -> None:
        self._process, self._place = process, place
        self._patience, self._hang = max(START_SECONDS, hang_seconds), hang_seconds
        self._read = 0

    def follow(self, progress: Progress) -> dict[str, Any]:
        """Pass on its progress until it ends, and return what it told last: `done`, `failed`, `rolled_back`, `stopped`,
        `left` (it was not the one to tell), or how it `died`."""
        heard = time.monotonic()
        while True:
            ended = self._process.poll() is not None
            for said in self._said():
                heard = time.monotonic()
                if "progress" in said:
                    progress(*said["progress"])
                elif "step" in said:
                    self._patience = self._hang
                else:
                    return said
            if ended:
                code = self._process.returncode
                return {"left": True} if code == 0 else {"died": f"it ended with code {code}{_meaning(code)}"}
            if time.monotonic() - heard > self._patience:
                self._kill()
                return {"died": f"it had not ended a step for {self._patience:.0f} s"}
            time.sleep(LOOK_SECONDS)

    def end(self) -> None:
        """Ask it to leave a checkpoint and end; kill it where it does not."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill()
        self._process.wait()

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log."""
        text = (self._place / LOG).read_text(errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def _kill(self) -> None:
        # Those that it started are of its session, and a hung one would outlive it.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _said(self) -> Iterator[dict[str, Any]]:
        """Whole lines that were told since the last look."""
        with (self._place / TOLD).open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield json.loads(line)


@contextmanager
def _started(job: Job, devices: Devices) -> Iterator[Running]:
    """Start a training process; it does not outlive the context."""
    place = _place(job, devices)
    (place / TOLD).write_text("")
    spec = place / SPEC
    spec.write_text(json.dumps(_spec(job, devices), indent=1))
    command = [sys.executable, "-m", "flywheel.training_worker", str(spec)]
    with (place / LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **_environment(job, devices)},
            start_new_session=True,  # a Ctrl-C on the terminal is the parent's to handle
        )
    running = Running(process, place, stage_of(job.recipe, job.stage).hang_seconds)
    try:
        yield running
    finally:
        running.end()


def _place(job: Job, devices: Devices) -> Path:
    """Where a machine keeps what it tells; the first one beside the checkpoints."""
    return job.work / f"machine-{devices.node_rank}" if devices.node_rank else job.work


def _kept(job: Job) -> Path:
    return job.kept / os.uname().nodename


def _spec(job: Job, devices: Devices) -> dict[str, Any]:
    return {
        "recipe": job.recipe.model_dump(mode="json", by_alias=True),
        "stage": job.stage,
        "rows": str(job.rows),
        "start": str(job.start) if job.start else None,
        "out": str(job.out),
        "work": str(job.work),
        "told": str(_place(job, devices) / TOLD),
        "kept": str(_kept(job)),
        "torchrun": _torchrun(devices),
    }


def _torchrun(devices: Devices) -> list[str]:
    """Arguments of torchrun; none for a process alone."""
    if devices.processes * devices.nodes == 1:
        return []
    count = ["--nproc-per-node", str(devices.processes), "--max-restarts", "0"]
    if devices.nodes == 1:
        return ["--standalone", *count]
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", devices.endpoint, "--node-rank", str(devices.node_rank)]
    return ["--nnodes", str(devices.nodes), *where, *count]


def _environment(job: Job, devices: Devices) -> Mapping[str, str]:
    """What must be set before the process starts."""
    found = {
        **ALLOCATOR,
        "CUDA_VISIBLE_DEVICES": ",".join(devices.visible),
        "TORCHINDUCTOR_CACHE_DIR": str(_kept(job) / "compiled"),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic products need on a GPU
    }
    if before := os.environ.get("GLIBC_TUNABLES"):
        found["GLIBC_TUNABLES"] = f"{before}:{ALLOCATOR['GLIBC_TUNABLES']}"
    if devices.processes > 1:
        cores = len(os.sched_getaffinity(0))
        found["OMP_NUM_THREADS"] = str(max(1, cores // devices.processes))
    if devices.nodes == 1:
        found["GLOO_SOCKET_IFNAME"] = "lo"
    return found


def _meaning(code: int) -> str:
    return ", which is how the kernel ends a process where memory runs out" if code in (-9, 137) else ""
