"""One worker thread for each model: calls into a runtime are serialised, requests wait in a bounded queue.

A handler submits tasks and reads answers as they are computed; the worker looks at the cancel flag after each piece,
so that a model stops within one step of a client's leaving.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from flywheel.runtimes.base import Chunk, Runtime, Sampling

log = logging.getLogger(__name__)


class Busy(Exception):
    """The queue is full."""


class Unanswerable(Exception):
    """The runtime does not take this prompt; the message says which it takes."""


@dataclass(frozen=True, slots=True)
class Task:
    """One answer that is wanted."""

    prompt: str
    sampling: Sampling


Answer = Chunk | bytes
"""A piece of text, or a picture (PNG)."""


class Answers:
    """The answers to one request as `(index of the task, answer)`, read in the event loop that submitted it.

    Iteration raises what the worker met: Unanswerable, or RuntimeError where the model failed.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Answer] | Exception | None] = asyncio.Queue()

    def cancel(self) -> None:
        """Compute no more. Harmless when all is computed."""
        self.cancelled.set()

    def put(self, item: tuple[int, Answer] | Exception | None) -> None:
        """Called by the worker: an answer, what went wrong, or None at the end."""
        try:
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Answer]]:
        while (item := await self._arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class Engine:
    """A runtime behind a queue of at most `waiting` requests."""

    def __init__(self, name: str, runtime: Runtime, waiting: int = 64) -> None:
        self.name, self.runtime = name, runtime
        self._queue: queue.Queue[Answers | None] = queue.Queue(maxsize=waiting)
        self._worker = threading.Thread(target=self._work, name=f"engine-{name}", daemon=True)

    def start(self) -> None:
        self._worker.start()

    @property
    def alive(self) -> bool:
        return self._worker.is_alive()

    def submit(self, tasks: Sequence[Task]) -> Answers:
        """Queue the tasks of one request. Raises Busy."""
        answers = Answers(tasks)
        try:
            self._queue.put_nowait(answers)
        except queue.Full:
            raise Busy from None
        return answers

    def close(self) -> None:
        """Finish what is queued and end the worker."""
        self._queue.put(None)
        self._worker.join()

    def _work(self) -> None:
        while (answers := self._queue.get()) is not None:
            try:
                self._answer(answers)
                answers.put(None)
            except Unanswerable as error:
                answers.put(error)
            except Exception:
                log.exception("model %s failed", self.name)
                answers.put(RuntimeError(f"model {self.name} failed"))

    def _answer(self, answers: Answers) -> None:
        for index, task in enumerate(answers.tasks):
            if answers.cancelled.is_set():
                return
            # A generator is closed as soon as it is left, so that the runtime frees its cache.
            with closing(self._run(task)) as pieces:
                for piece in pieces:
                    if answers.cancelled.is_set():
                        return
                    answers.put((index, piece))

    def _run(self, task: Task) -> Generator[Answer, None, None]:
        pieces: Iterator[Answer]
        try:
            if self.runtime.kind == "text":
                pieces = self.runtime.stream(task.prompt, task.sampling)  # looks at the prompt at once
            else:
                pieces = iter([self.runtime.picture(task.prompt, task.sampling)])
        except ValueError as error:
            raise Unanswerable(str(error)) from error
        yield from pieces
