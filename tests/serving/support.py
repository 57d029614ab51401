"""Runtimes without a model (text that depends on the seed alone, one grey pixel) and a server for them in a thread."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from flywheel.runtimes.base import Array, Chunk, Kind, Runtime, Sampling
from serving.__main__ import bind
from serving.app import create_app


class Words:
    """Answers `word<seed>-<step> `, one token a step; counts its steps. A gate, where there is one, holds each step."""

    kind: Kind = "text"
    context = 64

    def __init__(self, gate: threading.Semaphore | None = None, pause: float = 0) -> None:
        self.gate, self.pause = gate, pause
        self.steps = 0
        self.open = self.most_open = 0

    def count(self, prompt: str) -> int:
        return len(prompt.split())

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[Chunk]:
        if prompt == "fail":
            raise ValueError("inner secret")
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            for step in range(sampling.max_new_tokens):
                if self.gate:
                    self.gate.acquire()
                time.sleep(self.pause)
                self.steps += 1
                last = step + 1 == sampling.max_new_tokens
                yield Chunk(f"word{sampling.seed}-{step} ", 1, "length" if last else None)
        finally:
            self.open -= 1

    def picture(self, prompt: str, sampling: Sampling) -> bytes:
        raise NotImplementedError

    def forward(self, prompt: Any) -> Array:
        raise NotImplementedError

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> list[Array]:
        raise NotImplementedError


class Pixel(Words):
    """Draws one pixel as bright as the seed; knows the digits."""

    kind: Kind = "image"
    context = 0

    def picture(self, prompt: str, sampling: Sampling) -> bytes:
        if prompt not in "0123456789":
            raise ValueError(f"unknown label {prompt!r}; known: 0 to 9")
        body = zlib.compress(bytes([0, sampling.seed % 256]))
        parts = ((b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
        chunks = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@contextmanager
def running(models: Mapping[str, Runtime], waiting: int = 64, feedback: Path | None = None) -> Iterator[str]:
    """The URL of a real server in a thread."""
    listener = bind("127.0.0.1", 0)
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(create_app(models, waiting, feedback), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def eventually(true: Callable[[], bool]) -> None:
    """Wait until it is so; pytest's own time-out ends a wait for what never comes."""
    while not true():
        time.sleep(0.005)
