"""The HTTP routes: OpenAI's shapes over `Runtime`s.

Not covered yet: authentication, rate limits and metrics; the guard therefore answers to loopback only.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request

from flywheel import feedback as collected
from flywheel.errors import ServingError
from flywheel.runtimes.base import Kind, Runtime
from serving import refusals
from serving.answering import answer_text, collect, conversation, submit, tasks_for
from serving.engine import Engine, Task
from serving.guard import Guard, Rate
from serving.refusals import Refusal
from serving.schemas import (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    ErrorBody,
    FeedbackReceipt,
    FeedbackRequest,
    Image,
    ImageRequest,
    Images,
    ModelCard,
    ModelList,
    Status,
)
from serving.shapes import ChatShape, CompletionShape

ROUTES: Mapping[Kind, str] = {"text": "POST /v1/completions", "image": "POST /v1/images/generations"}
FEEDBACK_PER_SECOND, FEEDBACK_BURST = 10, 100
router = APIRouter()


def create_app(models: Mapping[str, Runtime], waiting: int = 64, feedback: Path | None = None) -> FastAPI:
    """An ASGI application that serves `models` by name; at most `waiting` requests queue for each of them.

    What users say of the answers is collected in the directory `feedback`, where one is given.
    """
    engines = {name: Engine(name, runtime, waiting) for name, runtime in models.items()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in engines.values():
            engine.start()
        yield
        for engine in engines.values():
            await asyncio.to_thread(engine.close)

    errors: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}
    # The framework's /docs page loads its scripts from a CDN; the document itself stays at /openapi.json.
    app = FastAPI(
        title="Flywheel", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan, responses=errors
    )
    app.state.engines, app.state.created = engines, int(time.time())
    app.state.feedback, app.state.feedback_rate = feedback, Rate(FEEDBACK_PER_SECOND, FEEDBACK_BURST)
    app.add_middleware(Guard)
    app.include_router(router)
    refusals.install(app)
    return app


@router.get("/health")
async def health() -> Status:
    """The process answers."""
    return Status(status="ok")


@router.get("/ready")
async def ready(request: Request) -> Status:
    """Every model takes requests."""
    ended = [name for name, engine in request.app.state.engines.items() if not engine.alive]
    if ended:
        raise Refusal(503, f"not ready: {', '.join(ended)}")
    return Status(status="ready")


@router.get("/v1/models")
async def list_models(request: Request) -> ModelList:
    """The models that are served."""
    return ModelList(data=[_card(request, name) for name in request.app.state.engines])


@router.get("/v1/models/{model:path}")
async def retrieve_model(model: str, request: Request) -> ModelCard:
    """One model."""
    return _card(request, model)


@router.post("/v1/completions", response_model=Completion)
async def complete(body: CompletionRequest, request: Request) -> Any:
    """Continue a prompt, or each prompt of a list. With `stream`, server-sent events."""
    engine = _engine(request, body.model, "text")
    tasks, prompt_tokens = await tasks_for(engine, body, body.prompts)
    shape = CompletionShape(body.model, [task.prompt if body.echo else "" for task in tasks])
    return await answer_text(request, body, submit(engine, tasks), shape, prompt_tokens)


@router.post("/v1/chat/completions", response_model=ChatCompletion)
async def converse(body: ChatRequest, request: Request) -> Any:
    """Take the next turn: asked by the model's chat template, or where it has none by the messages one after the
    other."""
    engine = _engine(request, body.model, "text")
    tasks, prompt_tokens = await tasks_for(engine, body, [await conversation(engine, body)])
    return await answer_text(request, body, submit(engine, tasks), ChatShape(body.model), prompt_tokens)


@router.post("/v1/images/generations")
async def draw(body: ImageRequest, request: Request) -> Images:
    """Draw a prompt `n` times: PNG, as base64."""
    engine = _engine(request, body.model, "image")
    answers = submit(engine, [Task(body.prompt, sampling) for sampling in body.samplings()])
    pictures = [picture for _, picture in await collect(request, answers) if isinstance(picture, bytes)]
    return Images(created=int(time.time()), data=[Image(b64_json=base64.b64encode(p).decode()) for p in pictures])


@router.post("/v1/feedback", status_code=201)
async def rate(body: FeedbackRequest, request: Request) -> FeedbackReceipt:
    """Rate an answer, or correct it."""
    directory: Path | None = request.app.state.feedback
    if directory is None:
        raise Refusal(404, "this server collects no feedback; start it with --feedback DIR", code="feedback_off")
    _engine(request, body.model, "text")
    request.app.state.feedback_rate.take()
    fields = FeedbackRequest.model_fields.keys()
    entry = {**body.model_dump(include=set(fields), exclude_none=True), "received": int(time.time())}
    try:
        await asyncio.to_thread(collected.append, directory, entry)
    except ServingError as error:
        raise Refusal(507, f"{error.thing}: {error.found}, {error.expected}", code="feedback_full") from error
    return FeedbackReceipt(model=body.model, received=entry["received"])


def _card(request: Request, name: str) -> ModelCard:
    return ModelCard(id=name, created=request.app.state.created, kind=_known(request, name).runtime.kind)


def _known(request: Request, name: str) -> Engine:
    engines: Mapping[str, Engine] = request.app.state.engines
    if name not in engines:
        found = f"the model {name!r} is not served here; served are: {', '.join(engines)}"
        raise Refusal(404, found, param="model", code="model_not_found")
    return engines[name]


def _engine(request: Request, name: str, kind: Kind) -> Engine:
    """The engine of a model that makes what the route gives. Raises Refusal."""
    engine = _known(request, name)
    made = engine.runtime.kind
    if made != kind:
        raise Refusal(400, f"the model {name!r} makes {made}, not {kind}; ask it at {ROUTES[made]}", param="model")
    return engine
