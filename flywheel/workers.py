"""Worker processes: functions run side by side, and those that touch foreign input run confined.

A worker is `python -m flywheel.workers`: it takes one request at a time as a JSON line and answers with one. An open
request runs in the worker itself, which keeps its models and caches loaded. A confined request runs in a fork of it
(`flywheel.confinement`); whatever happens there, the worker and its parent live on.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Protocol

from flywheel.confinement import Answer, Caps, confined, die_with_parent, run, word_for
from flywheel.errors import ArtifactError, FlywheelError, RecipeError, SourceError, WorkerError

PRELOADED = (
    *("flywheel.sources.base", "flywheel.sources.files", "flywheel.sources.json_tables", "flywheel.sources.tables"),
    *("numpy", "orjson", "pandas", "pyarrow", "pyarrow.parquet"),
)
"""Imported by a worker once, so that its forks start in milliseconds; pyarrow imports pandas with its first array."""
INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|TZ|TMPDIR|VIRTUAL_ENV|(?:LC|LD|OMP|MKL|CUDA|NVIDIA|TORCH|TORCHINDUCTOR|XDG)_\w+"
    r"|PYTHON\w*|(?:HF|TRANSFORMERS|TOKENIZERS|ORT)_(?!\w*TOKEN)\w+"
)
"""What a worker sees of the environment. It works for foreign data: keys, passwords and addresses are not for it."""


OUTSIDE = ("disk_full", "lost")
"""Faults of the machine, which say nothing about what was worked on."""
TOLD = {kind.__name__: kind for kind in (RecipeError, SourceError, ArtifactError)}
"""Errors that say all there is to say, and are raised again by who asked: the fault of the answer is their name."""
REMEDIES = {
    "disk_full": "free some space; the same command goes on with what is left to do",
    "lost": "see what ended it (the kernel does where memory runs out); the same command goes on with what is left",
    "memory": "give the machine more memory, or use fewer workers",
}


@dataclass(frozen=True)
class Request:
    """One call of a function of one JSON argument."""

    function: str
    """`module:name`."""
    argument: Any
    caps: Caps | None = None
    """None: the function is trusted and runs in the worker itself."""


class Mapper(Protocol):
    """Whatever runs requests side by side: worker processes here, Prefect, Dask or Ray in the tasks."""

    def __call__(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers in the order of the requests."""


class Worker:
    """A running worker process; it ends with its parent."""

    def __init__(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
        environment = {**inherited, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flywheel.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a Ctrl-C on the terminal is the parent's to handle
        )

    def call(self, request: Request) -> Answer:
        """Run one request. A worker that died answers `lost`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            return Answer(**json.loads(line))
        except (OSError, ValueError, TypeError):
            self._process.kill()
            return Answer(fault="lost", detail=f"a worker ended with code {self._process.wait()}")

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the worker and what it runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Pool:
    """A number of workers, started at the first use; call it to map requests. They end with the context, or the pool.

    The thread that makes the first call must outlive the pool: with it the kernel would end the workers.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size or len(os.sched_getaffinity(0))
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all: list[Worker] = []
        self._end = weakref.finalize(self, _stop, self._all)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, requests: Sequence[Request]) -> Iterator[Answer]:
        from concurrent.futures import ThreadPoolExecutor

        while len(self._all) < min(self.size, len(requests)):
            self._idle.put(self._start())
        with ThreadPoolExecutor(self.size) as threads:
            waiting = [threads.submit(self._call, request) for request in requests]
            try:
                for future in waiting:
                    yield future.result()
            finally:
                for future in waiting:
                    future.cancel()

    def _start(self) -> Worker:
        worker = Worker()
        self._all.append(worker)
        return worker

    def _call(self, request: Request) -> Answer:
        worker = self._idle.get()
        try:
            for _ in range(2):  # a worker that was ended from outside is no fault of the request
                if not worker.alive():
                    worker = self._start()
                answer = worker.call(request)
                if worker.alive():
                    break
            return answer
        finally:
            self._idle.put(worker)


def _stop(workers: Iterable[Worker]) -> None:
    for worker in workers:
        worker.stop()


def value(answer: Answer, what: str) -> Any:
    """The value of an answer. Raises the function's own error if that is of TOLD, else WorkerError."""
    if answer.fault in TOLD:
        thing, found, expected, remedy = answer.value
        raise TOLD[answer.fault](thing, found=found, expected=expected, remedy=remedy)
    if answer.fault:
        raise WorkerError(
            what,
            found=f"{answer.fault}: {answer.detail}",
            expected="a function that returns",
            remedy=REMEDIES.get(answer.fault, "read the message"),
        )
    return answer.value


def request(raw: Mapping[str, Any]) -> Request:
    """A request as `asdict` wrote it."""
    return Request(raw["function"], raw["argument"], Caps(**raw["caps"]) if raw["caps"] else None)


def here(requests: Sequence[Request]) -> Iterator[Answer]:
    """A mapper for a thread that is a worker already (of Prefect, Dask or Ray): one process that ends with it."""
    yield from _own.pool(requests)


class _Own(threading.local):
    def __init__(self) -> None:
        self.pool = Pool(1)


_own = _Own()


# ---------------------------------------------------------------- in the worker


def main() -> None:
    """Answer requests until the parent closes the pipe or dies."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    for module in PRELOADED:
        import_module(module)
    for line in sys.stdin.buffer:
        raw = json.loads(line)
        caps = Caps(**raw["caps"]) if raw["caps"] else None
        answer = _answer(raw, caps)
        answers.write(json.dumps(asdict(answer)).encode() + b"\n")
        answers.flush()


def _answer(raw: Mapping[str, Any], caps: Caps | None) -> Answer:
    try:
        return confined(raw, caps) if caps else Answer(run(raw))
    except Exception as error:
        if type(error) in TOLD.values() and isinstance(error, FlywheelError):
            parts = [error.thing, error.found, error.expected, error.remedy]
            return Answer(parts, type(error).__name__, f"{type(error).__name__}: {error}"[:2_000])
        return Answer(fault=word_for(error), detail=f"{type(error).__name__}: {error}"[:2_000])


if __name__ == "__main__":
    main()
