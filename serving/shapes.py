"""The two shapes of a text answer, whole and in pieces: completions and chat completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel

from flywheel.runtimes.base import Chunk
from serving.schemas import (
    ChatAnswer,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    Completion,
    CompletionChoice,
    Usage,
)


class Shape(Protocol):
    """How the answers to one request are written down. Index i is the i-th answer."""

    def whole(self, texts: Sequence[Chunk], usage: Usage) -> BaseModel:
        """All answers at once."""

    def opening(self, index: int) -> BaseModel | None:
        """The event before the first piece of an answer, if there is one."""

    def piece(self, index: int, chunk: Chunk) -> BaseModel:
        """The event for one piece."""

    def closing(self, usage: Usage) -> BaseModel:
        """The last event, for clients that asked for the usage."""


class CompletionShape:
    """`echoes` holds what stands before each answer: its prompt, or nothing."""

    def __init__(self, model: str, echoes: Sequence[str]) -> None:
        self.model, self.echoes = model, echoes
        self.id, self.created = f"cmpl-{uuid.uuid4().hex}", int(time.time())

    def whole(self, texts: Sequence[Chunk], usage: Usage) -> Completion:
        return self._event([self._choice(i, self.echoes[i] + t.text, t) for i, t in enumerate(texts)], usage)

    def opening(self, index: int) -> Completion | None:
        echo = self.echoes[index]
        return self._event([self._choice(index, echo, Chunk(echo, 0))]) if echo else None

    def piece(self, index: int, chunk: Chunk) -> Completion:
        return self._event([self._choice(index, chunk.text, chunk)])

    def closing(self, usage: Usage) -> Completion:
        return self._event([], usage)

    def _choice(self, index: int, text: str, chunk: Chunk) -> CompletionChoice:
        return CompletionChoice(index=index, text=text, finish_reason=chunk.finish_reason)

    def _event(self, choices: list[CompletionChoice], usage: Usage | None = None) -> Completion:
        return Completion(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)


class ChatShape:
    def __init__(self, model: str) -> None:
        self.model = model
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def whole(self, texts: Sequence[Chunk], usage: Usage) -> ChatCompletion:
        choices = [
            ChatChoice(index=i, message=ChatAnswer(content=t.text), finish_reason=t.finish_reason)
            for i, t in enumerate(texts)
        ]
        return ChatCompletion(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)

    def opening(self, index: int) -> ChatCompletionChunk:
        return self._event([ChunkChoice(index=index, delta={"role": "assistant", "content": ""}, finish_reason=None)])

    def piece(self, index: int, chunk: Chunk) -> ChatCompletionChunk:
        delta = {"content": chunk.text} if chunk.text else {}
        return self._event([ChunkChoice(index=index, delta=delta, finish_reason=chunk.finish_reason)])

    def closing(self, usage: Usage) -> ChatCompletionChunk:
        return self._event([], usage)

    def _event(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)
