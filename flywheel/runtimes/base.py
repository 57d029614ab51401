"""What serving needs of a model: onnxruntime, numpy and tokenizers alone, never torch.

A `Predictor` is a trained model behind torch or onnxruntime; the exporter asks both the same questions and compares.
A `Runtime` is a predictor that also speaks a user's terms: it turns a prompt string into text or a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["text", "image"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw (names of GenerationConfig). `temperature=0` is greedy."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    num_inference_steps: int = 25
    guidance_scale: float = 1.0
    ignore_eos: bool = False
    """Go on past the end token, so that a proof compares as many steps as it asks for."""
    places: tuple[int, ...] = ()
    """What stands for each prompt's place in the list, so that its draw does not depend on the others."""


class Predictor(Protocol):
    """Two questions that parity needs. What a prompt is, the room and the runtime agree on (token ids; a label)."""

    def forward(self, prompt: Any) -> Array:
        """One pass without sampling: logits (seq, vocab), or a noise prediction (channels, height, width)."""

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> list[Array]:
        """One sample for each prompt: new token ids (steps,), or a picture (channels, height, width) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed completion and the number of tokens in it. Only the last piece has a `finish_reason`."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"] | None = None


@runtime_checkable
class Conversational(Protocol):
    """A runtime that can ask its model for the next turn of a conversation."""

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A prompt from messages with `role` and `content`. Raises ValueError where the model takes no such ones."""


class Runtime(Predictor, Protocol):
    """A served model."""

    kind: Kind
    context: int
    """Most tokens that prompt and completion may have together (0 where the modality has none)."""

    def count(self, prompt: str) -> int:
        """Prompt length in tokens (0 where the modality has none)."""

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[Chunk]:
        """A completion piece by piece. Only where `kind` is `text`."""

    def picture(self, prompt: str, sampling: Sampling) -> bytes:
        """A PNG. Only where `kind` is `image`. An unknown prompt raises ValueError that lists the known ones."""
