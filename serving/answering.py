"""From a request to an engine and back: admission, whole and streamed answers, and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from flywheel.runtimes.base import Chunk, Conversational
from serving import refusals
from serving.engine import Answer, Answers, Busy, Engine, Task, Unanswerable
from serving.refusals import Refusal
from serving.schemas import MAX_CHOICES, ChatRequest, TextRequest, Usage
from serving.shapes import Shape


async def tasks_for(engine: Engine, body: TextRequest, prompts: Sequence[str]) -> tuple[list[Task], int]:
    """One task for each wanted answer, prompt by prompt, and the number of prompt tokens. Raises Refusal."""
    if len(prompts) * (body.n or 1) > MAX_CHOICES:
        raise Refusal(400, f"prompts times n must be at most {MAX_CHOICES}", param="n")
    context = engine.runtime.context
    # Tokenizing a megabyte takes a moment, in which the event loop goes on.
    counts = await asyncio.to_thread(lambda: [engine.runtime.count(prompt) for prompt in prompts])
    if min(counts) == 0:
        raise Refusal(400, "the prompt is empty; the model needs a token to start from", param="prompt")
    if max(counts) >= context:
        found = (
            f"the prompt has {max(counts):,} tokens; the context of {engine.name!r} holds {context:,} with the answer"
        )
        raise Refusal(400, found, param="prompt", code="context_length_exceeded")
    tasks = [
        Task(prompt, sampling)
        for prompt, count in zip(prompts, counts, strict=True)
        for sampling in body.samplings(context - count)
    ]
    return tasks, sum(counts)


async def conversation(engine: Engine, body: ChatRequest) -> str:
    """The messages as a prompt. Raises Refusal where the model's chat template does not take them."""
    said = [{"role": message.speaker, "content": message.text} for message in body.messages]
    runtime = engine.runtime
    if not isinstance(runtime, Conversational):
        return "\n".join(message["content"] for message in said)
    try:
        return await asyncio.to_thread(runtime.conversation, said)
    except ValueError as error:
        raise Refusal(400, f"the model does not take these messages: {error}", param="messages") from error


def submit(engine: Engine, tasks: Sequence[Task]) -> Answers:
    """Queue the tasks of one request, or refuse with 503."""
    try:
        return engine.submit(tasks)
    except Busy:
        found = f"too many requests wait for {engine.name!r}; try again"
        raise Refusal(503, found, code="overloaded", headers={"Retry-After": "1"}) from None


async def collect(request: Request, answers: Answers) -> list[tuple[int, Answer]]:
    """Everything, as (index of the task, answer); less where the client leaves. Raises Refusal."""
    watcher = asyncio.create_task(_cancel_when_gone(request, answers))
    try:
        return [item async for item in answers]
    except Unanswerable as error:
        raise Refusal(400, str(error), param="prompt") from error
    finally:
        watcher.cancel()
        answers.cancel()


async def _cancel_when_gone(request: Request, answers: Answers) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    answers.cancel()


async def answer_text(
    request: Request, body: TextRequest, answers: Answers, shape: Shape, prompt_tokens: int
) -> BaseModel | Response:
    """The text of all tasks, whole or as server-sent events."""
    if body.stream:
        return EventStream(answers, _events(answers, shape, prompt_tokens, body.include_usage))
    texts = [Chunk("", 0, "length")] * len(answers.tasks)
    for index, piece in await collect(request, answers):
        assert isinstance(piece, Chunk)
        so_far = texts[index]
        texts[index] = Chunk(so_far.text + piece.text, so_far.tokens + piece.tokens, piece.finish_reason)
    return shape.whole(texts, _usage(prompt_tokens, sum(t.tokens for t in texts)))


class EventStream(StreamingResponse):
    """Server-sent events. However it ends, even before its first event, the model stops."""

    def __init__(self, answers: Answers, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.answers.cancel()


async def _events(answers: Answers, shape: Shape, prompt_tokens: int, include_usage: bool) -> AsyncIterator[str]:
    opened: set[int] = set()
    tokens = 0
    try:
        async for index, piece in answers:
            assert isinstance(piece, Chunk)
            tokens += piece.tokens
            if index not in opened and (opening := shape.opening(index)):
                yield _event(opening)
            opened.add(index)
            if piece.text or piece.finish_reason:
                yield _event(shape.piece(index, piece))
    except (RuntimeError, Unanswerable) as error:  # the status line is long gone
        yield _event(refusals.body(500 if isinstance(error, RuntimeError) else 400, str(error)))
        return
    if include_usage:
        yield _event(shape.closing(_usage(prompt_tokens, tokens)))
    yield "data: [DONE]\n\n"


def _event(body: BaseModel) -> str:
    return f"data: {body.model_dump_json()}\n\n"


def _usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    total = prompt_tokens + completion_tokens
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total)
