"""Models that answer in one pass, on onnxruntime, numpy and tokenizers alone: filling in masked tokens, scoring a text.

What a pass is, torch (evaluation, parity) and onnxruntime (serving) say; what is made of its outputs stands here once.
The graph is `model.onnx`: `input_ids` and `attention_mask`, both (batch, seq) int64, in; `logits` out. Not covered:
filling several masks one after the other, each with the ones before it filled in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.runtimes.base import Array, Chunk, Kind, Sampling
from flywheel.runtimes.chat import open_template
from flywheel.runtimes.sampling import pick, rng_for
from flywheel.runtimes.session import open_session
from flywheel.runtimes.stops import StopScanner

Ids = NDArray[np.int64]
Pass = Callable[[Ids, Ids], Array]
"""(token ids (batch, seq), attention mask (batch, seq)) → logits (batch, seq, vocab) of tokens, or (batch, 1) of
texts, float32."""

LARGEST_OUTPUT = 2**24
"""Numbers that one batch may answer with: 64 MiB."""
LARGEST_BATCH = 2**13
"""Tokens of one batch."""


class Filler:
    """Fills in masked tokens. A prompt is an array of token ids (seq,), some of them `mask_token_id`.

    `manifest` holds `mask_token_id`, `pad_token_id`, `vocab_size` and `max_position_embeddings`.
    """

    def __init__(self, run: Pass, manifest: Mapping[str, Any]) -> None:
        self.run = run
        self.mask, self.pad = int(manifest["mask_token_id"]), int(manifest["pad_token_id"])
        self.vocab_size, self.context = int(manifest["vocab_size"]), int(manifest["max_position_embeddings"])

    def forward(self, prompt: Sequence[int] | Ids) -> Array:
        """Logits (seq, vocab). Raises ValueError for a prompt that is empty or longer than the context."""
        ids = checked(prompt, self.context)
        logits: Array = self.run(ids[None], np.ones_like(ids)[None])[0]
        return logits

    def generate(self, prompts: Sequence[Sequence[int] | Ids], sampling: Sampling) -> list[Array]:
        """A token id for each mask of each prompt, (masks,), drawn for each mask without regard to the others."""
        found = []
        for index, logits in enumerate(self.at_masks(prompts)):
            rng = rng_for(sampling, index)
            found.append(np.array([pick(row, sampling, rng) for row in logits], dtype=np.int64))
        return found

    def at_masks(self, prompts: Sequence[Sequence[int] | Ids]) -> Iterator[Array]:
        """Logits (masks, vocab) of each prompt. Neighbours share a batch, so prompts of like lengths are fastest."""
        rows = [checked(prompt, self.context) for prompt in prompts]
        size = max(1, LARGEST_OUTPUT // (max(map(len, rows), default=1) * self.vocab_size))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            for ids, logits in zip(part, self.run(*padded(part, self.pad)), strict=True):
                yield logits[: len(ids)][ids == self.mask]


class Scorer:
    """Scores texts. A prompt is an array of token ids (seq,).

    `manifest` holds `pad_token_id` and `max_position_embeddings`.
    """

    def __init__(self, run: Pass, manifest: Mapping[str, Any]) -> None:
        self.run = run
        self.pad, self.context = int(manifest["pad_token_id"]), int(manifest["max_position_embeddings"])

    def forward(self, prompt: Sequence[int] | Ids) -> Array:
        """The score (1,). Raises ValueError for a prompt that is empty or longer than the context."""
        ids = checked(prompt, self.context)
        score: Array = self.run(ids[None], np.ones_like(ids)[None])[0]
        return score

    def generate(self, prompts: Sequence[Sequence[int] | Ids], sampling: Sampling) -> list[Array]:
        """The score (1,) of each prompt: nothing is drawn."""
        return [self.forward(prompt) for prompt in prompts]

    def scores(self, prompts: Sequence[Sequence[int] | Ids]) -> NDArray[np.float64]:
        """The score of each prompt, (prompts,), several in a batch."""
        rows = [checked(prompt, self.context) for prompt in prompts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.zeros(len(rows))
        while order:
            size = max(1, LARGEST_BATCH // len(rows[order[-1]]))
            batch, order = order[-size:], order[:-size]
            found[batch] = self.run(*padded([rows[i] for i in batch], self.pad))[:, 0]
        return found


class _Served:
    """What both served models share: `directory/precision/model.onnx` and `directory/tokenizer.json`.

    Calls from several threads take turns.
    """

    kind: Kind = "text"
    context: int

    def open(self, directory: Path, precision: str) -> None:
        """Read graph and tokenizer."""
        from tokenizers import Tokenizer

        self.session = open_session(directory / precision / "model.onnx", gpu=True)
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._lock = threading.Lock()

    def count(self, prompt: str) -> int:
        """Prompt length in tokens."""
        return len(self._encode(prompt))

    def picture(self, prompt: str, sampling: Sampling) -> bytes:
        """Raises ValueError: this model writes text."""
        raise ValueError("this model writes text; it makes no pictures")

    def _encode(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(prompt).ids
        return ids

    def _pass(self, ids: Ids, mask: Ids) -> Array:
        with self._lock:
            logits: Array = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
        return logits


class Masked(_Served, Filler):
    """A served model that fills in masks; `manifest["mask_token"]` is how a prompt writes one."""

    def __init__(self, directory: Path, manifest: Mapping[str, Any], precision: str) -> None:
        self.open(directory, precision)
        self.mask_token = str(manifest["mask_token"])
        Filler.__init__(self, self._pass, manifest)

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[Chunk]:
        """The prompt with its masks filled in, as one piece. With fewer `max_new_tokens` than masks it ends before the
        first mask that is left. Raises ValueError for a prompt without a mask or longer than the context."""
        encoding = self.tokenizer.encode(prompt)
        ids = checked(encoding.ids, self.context)
        places = [span for span, token in zip(encoding.offsets, encoding.ids, strict=True) if token == self.mask]
        if not places:
            raise ValueError(f"the prompt has no {self.mask_token}; this model fills in what is masked so")
        (drawn,) = self.generate([ids], sampling)
        text, at = "", 0
        filled = places[: sampling.max_new_tokens]
        for (start, end), token in zip(filled, drawn, strict=False):
            text += prompt[at:start] + self.tokenizer.decode([int(token)])
            at = end
        whole = len(filled) == len(places)
        rest = prompt[at:] if whole else prompt[at : places[len(filled)][0]]
        return iter([_piece(text + rest, len(filled), whole, sampling)])


class Reward(_Served, Scorer):
    """A served reward model: the answer to a text, or to a conversation, is its score in decimals.

    `manifest["chat_template"]` is how it reads conversations (`source`, `variables` and `special` of ChatTemplate).
    """

    def __init__(self, directory: Path, manifest: Mapping[str, Any], precision: str) -> None:
        self.open(directory, precision)
        self._chat = open_template(directory, manifest["chat_template"])
        Scorer.__init__(self, self._pass, manifest)

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A whole conversation as a prompt for `count` and `stream`. Raises ValueError where it is refused."""
        return self._chat.whole(messages)

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[Chunk]:
        """The score, such as `0.7314`, as one piece. Raises ValueError for a prompt longer than the context."""
        (score,) = self.forward(self._encode(prompt))
        return iter([_piece(f"{score:.4f}", 1, True, sampling)])

    def _encode(self, prompt: str) -> list[int]:
        if self._chat.wrote(prompt):
            return self._chat.encode(self.tokenizer, prompt)
        return super()._encode(prompt)


def checked(prompt: Sequence[int] | Ids, context: int) -> Ids:
    """A prompt as an array (seq,). Raises ValueError where it is empty or longer than the context."""
    ids = np.asarray(prompt, dtype=np.int64)
    if not 0 < len(ids) <= context:
        raise ValueError(f"this model takes 1 to {context} tokens; the prompt has {len(ids)}")
    return ids


def padded(prompts: Sequence[Ids], pad: int) -> tuple[Ids, Ids]:
    """Token ids and attention mask, both (batch, longest), padded on the right."""
    ids = np.full((len(prompts), max(map(len, prompts))), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
    return ids, mask


def _piece(text: str, tokens: int, whole: bool, sampling: Sampling) -> Chunk:
    """A whole answer, cut before the first stop string."""
    scanner = StopScanner(sampling.stop)
    shown = scanner.push(text)
    return Chunk(shown + scanner.flush(), tokens, "stop" if whole or scanner.stopped else "length")
