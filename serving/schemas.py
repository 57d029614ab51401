"""What clients send and get, in the shapes of OpenAI's API.

A field that is not declared here falls into one of three groups. Some say nothing about the answer (`user`, `metadata`)
and are accepted. Some would change it (`logit_bias`, `tools`): they are accepted with the value that means "no change"
and refused otherwise, rather than ignored in silence. The rest are refused as unknown.

Extensions, by the names of GenerationConfig and diffusers: `top_k`, `num_inference_steps`, `guidance_scale`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from flywheel.runtimes.base import Sampling

MAX_CHOICES = 128
"""Most answers (prompts times `n`) to one request."""
GREEDY_BELOW = 1e-3
"""Temperatures below this draw the likeliest token; dividing by them would overflow."""

HARMLESS = {
    "metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
    "service_tier", "store", "user",
}  # fmt: skip
"""Fields that say nothing about the answer."""

FinishReason = Literal["stop", "length"]


def _encodable(text: str) -> str:
    """JSON can carry half of a surrogate pair; UTF-8, and so a tokenizer, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds a lone surrogate, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
StopString = Annotated[Text, Field(min_length=1)]


class Request(BaseModel):
    """A request body. `neutral` maps an undeclared field to its values that change nothing."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Request:
        for name, value in (self.model_extra or {}).items():
            if name in HARMLESS or value in self.neutral.get(name, ()):
                continue
            known = name in self.neutral
            message = "is not supported here and ignoring it would change the answer" if known else "is not known"
            raise PydanticCustomError("unsupported", "{param} {what}", {"param": name, "what": message})
        return self


def _seeds(seed: int | None) -> int:
    """A seed that numpy takes: the client's, or a fresh one."""
    return secrets.randbits(63) if seed is None else seed % 2**64


class StreamOptions(BaseModel):
    include_usage: bool = False


class TextRequest(Request):
    """What completions and chat have in common. A null stands for the default."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    seed: Seed | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def limit(self, room: int) -> int:
        """New tokens for each answer, given `room` tokens that the context has left."""
        return min(room, self.max_tokens or room)

    def samplings(self, room: int) -> list[Sampling]:
        """One for each of the `n` answers to a prompt; answer i is drawn with seed + i, whatever stands beside it."""
        seed = _seeds(self.seed)
        temperature = 1.0 if self.temperature is None else self.temperature
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or ()
        return [
            Sampling(
                max_new_tokens=self.limit(room),
                temperature=temperature if temperature >= GREEDY_BELOW else 0.0,
                top_k=self.top_k or 0,
                top_p=1.0 if self.top_p is None else self.top_p,
                seed=seed + i,
                stop=tuple(stop),
            )
            for i in range(self.n or 1)
        ]


class CompletionRequest(TextRequest):
    neutral = {
        "best_of": (None, 1), "frequency_penalty": (None, 0), "logit_bias": (None, {}), "logprobs": (None,),
        "presence_penalty": (None, 0), "suffix": (None, ""),
    }  # fmt: skip

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICES)]
    echo: bool | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def limit(self, room: int) -> int:
        """OpenAI's default is 16 tokens."""
        return min(room, self.max_tokens or 16)


class TextPart(Request):
    type: Literal["text"]
    text: Text


class Message(Request):
    neutral = {k: (None, []) for k in ("annotations", "audio", "function_call", "name", "refusal", "tool_calls")}

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    @property
    def speaker(self) -> str:
        """The role as chat templates know it."""
        return "system" if self.role == "developer" else self.role

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(TextRequest):
    neutral = {
        "audio": (None,), "frequency_penalty": (None, 0), "function_call": (None, "none", "auto"),
        "functions": (None, []), "logit_bias": (None, {}), "logprobs": (None, False), "modalities": (None, ["text"]),
        "presence_penalty": (None, 0), "reasoning_effort": (None, "none"), "response_format": (None, {"type": "text"}),
        "tool_choice": (None, "none", "auto"), "tools": (None, []), "top_logprobs": (None, 0),
        "verbosity": (None, "medium"), "web_search_options": (None,),
    }  # fmt: skip

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    def limit(self, room: int) -> int:
        """OpenAI's default is as long as the context allows."""
        return min(room, self.max_completion_tokens or self.max_tokens or room)


class ImageRequest(Request):
    """`size` and its like are accepted as `auto` only: a model draws at the size that it was trained for."""

    neutral = {
        "background": (None, "auto"), "moderation": (None, "auto"), "output_compression": (None, 100),
        "output_format": (None, "png"), "partial_images": (None, 0), "quality": (None, "auto"),
        "response_format": (None, "b64_json"), "size": (None, "auto"), "stream": (None, False), "style": (None,),
    }  # fmt: skip

    model: str
    prompt: Text = Field(max_length=4000)
    n: int | None = Field(default=None, ge=1, le=10)
    seed: Seed | None = None
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)

    def samplings(self) -> list[Sampling]:
        """One for each picture; picture i is drawn with seed + i."""
        given = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        chosen: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        seed = _seeds(self.seed)
        return [Sampling(seed=seed + i, **chosen) for i in range(self.n or 1)]


class FeedbackRequest(Request):
    """What a user thinks of an answer."""

    model: str
    id: Text | None = Field(default=None, max_length=200)
    """Of the completion."""
    prompt: Text = Field(min_length=1)
    completion: Text
    rating: Literal["up", "down"]
    correction: Text | None = Field(default=None, min_length=1)
    """What the answer should have been."""
    comment: Text | None = Field(default=None, max_length=10_000)


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(BaseModel):
    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: None = None


class Completion(BaseModel):
    """A whole completion, and also one piece of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class ChatAnswer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    index: int
    message: ChatAnswer
    finish_reason: FinishReason | None
    logprobs: None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(BaseModel):
    index: int
    delta: dict[str, str]
    finish_reason: FinishReason | None
    logprobs: None = None


class ChatCompletionChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Image(BaseModel):
    b64_json: str


class Images(BaseModel):
    created: int
    data: list[Image]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "flywheel"
    kind: Literal["text", "image"]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(BaseModel):
    status: Literal["ok", "ready"]


class FeedbackReceipt(BaseModel):
    """The entry is on the disk."""

    object: Literal["feedback"] = "feedback"
    model: str
    received: int


class ErrorDetail(BaseModel):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Every answer that is not 2xx."""

    error: ErrorDetail
