"""A decoder-only language model on plain onnxruntime: KV cache, sampling, streaming.

The graph is the one that onnxruntime-genai's model builder writes: `input_ids (batch, seq)`, `attention_mask`,
`past_key_values.N.key|value` in, `logits (batch, seq, vocab)` and `present.N.key|value` out. GroupQueryAttention writes
new keys and values in place when past and present are bound to one buffer, so that a step copies nothing; how many
positions of a row count, it reads from the row's mask. Not covered: joining a running batch (see serving), beam search.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.errors import ServingError
from flywheel.runtimes.base import Array, Chunk, Kind, Sampling
from flywheel.runtimes.chat import open_template
from flywheel.runtimes.drawing import Step, one_by_one, pieces, side_by_side
from flywheel.runtimes.session import open_session

Ids = NDArray[np.int64]

BATCH_BYTES = 256 * 2**20
"""Memory that one batch may take."""
LARGEST_BATCH = 32
"""Prompts that `generate` decodes side by side: beyond this two cores gain nothing."""


class Decoder:
    """A served language model: `directory/precision/*.onnx` and `directory/tokenizer.json`.

    `manifest` holds `eos_token_id` (one id or a list) and `max_position_embeddings`, named as in transformers, and
    `chat_template` where the model was taught to take turns (`source`, `variables` and `special` of ChatTemplate).
    A prompt is an array of token ids (seq,); strings are encoded with the tokenizer's own template. Calls from several
    threads take turns step by step. The graph runs on the CPU: CUDA has no float32 GroupQueryAttention.
    """

    kind: Kind = "text"

    def __init__(self, directory: Path, manifest: Mapping[str, Any], precision: str) -> None:
        from tokenizers import Tokenizer

        graphs = sorted((directory / precision).glob("*.onnx"))
        if len(graphs) != 1:
            raise ServingError(
                f"model bundle {directory.name}",
                found=f"{len(graphs)} ONNX files in {precision}/",
                expected="exactly one",
                remedy="Export the model again.",
            )
        self.session = open_session(graphs[0], gpu=False)
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._chat = open_template(directory, manifest["chat_template"]) if "chat_template" in manifest else None
        eos = manifest["eos_token_id"]
        self.eos = frozenset(eos if isinstance(eos, list) else [eos])
        self.context = int(manifest["max_position_embeddings"])
        self._lock = threading.Lock()

    def count(self, prompt: str) -> int:
        """Prompt length in tokens."""
        return len(self._encode(prompt))

    def forward(self, prompt: Sequence[int] | Ids) -> Array:
        """Logits (seq, vocab) for token ids (seq,). Raises ValueError where they do not fit into the context."""
        ids = self._checked(prompt, 0)
        with self._lock:
            return _Batch(self.session, 1, len(ids)).prefill([ids])[0]

    def generate(self, prompts: Sequence[Sequence[int] | Ids], sampling: Sampling) -> list[Array]:
        """New token ids (steps,) for each prompt, up to and without the end token. `stop` is for `stream` alone.

        Prompts are decoded side by side; which prompts share a batch does not change what is drawn for them.
        Raises ValueError where a prompt and `max_new_tokens` do not fit into the context.
        """
        checked = [self._checked(prompt, sampling.max_new_tokens) for prompt in prompts]
        size = self._rows_at_once(max(map(len, checked), default=0), sampling.max_new_tokens)
        found: list[Array] = []
        for start in range(0, len(checked), size):
            found += self._generate(checked[start : start + size], sampling, start)
        return found

    def log_likelihood(self, windows: Sequence[Sequence[int] | Ids], score_from: Sequence[int]) -> list[Array]:
        """Log-probability in nats of the tokens `window[score_from:]` given those before them; `score_from` >= 1.

        Shape (len(window) - score_from,) for each window. Raises ValueError where a window does not fit.
        """
        found = []
        for window, start in zip(windows, score_from, strict=True):
            logits = self.forward(window)[start - 1 : -1]
            logits -= logits.max(axis=1, keepdims=True)
            chosen = np.take_along_axis(logits, np.asarray(window, dtype=np.int64)[start:, None], axis=1)[:, 0]
            found.append(chosen.astype(np.float64) - np.log(np.exp(logits).sum(axis=1, dtype=np.float64)))
        return found

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[Chunk]:
        """A completion piece by piece; `tokens` of all pieces add up to the tokens drawn, the end token not counted.

        Joined, the pieces are the decoded tokens, cut before the first stop string; a character split over tokens
        comes whole. Raises ValueError at once where the prompt and `max_new_tokens` do not fit into the context.
        """
        return self._stream(self._checked(self._encode(prompt), sampling.max_new_tokens), sampling)

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What to ask for the next turn of a conversation, as a prompt for `count` and `stream`: by the chat template,
        or what was said line by line where there is none. Raises ValueError where the template refuses it."""
        if self._chat is None:
            return "\n".join(message["content"] for message in messages)
        return self._chat.prompt(messages)

    def picture(self, prompt: str, sampling: Sampling) -> bytes:
        """Raises ValueError: this model writes text."""
        raise ValueError("this model writes text; it makes no pictures")

    def _encode(self, prompt: str) -> list[int]:
        if self._chat is not None and self._chat.wrote(prompt):
            return self._chat.encode(self.tokenizer, prompt)
        ids: list[int] = self.tokenizer.encode(prompt).ids
        return ids

    def _checked(self, prompt: Sequence[int] | Ids, steps: int) -> Ids:
        ids = np.asarray(prompt, dtype=np.int64)
        if len(ids) == 0:
            raise ValueError("the prompt is empty; at least 1 token is needed")
        if len(ids) + steps > self.context:
            asked = f"{len(ids)} in the prompt and max_new_tokens={steps}" if steps else f"{len(ids)}"
            raise ValueError(f"this model's context is {self.context} tokens; {asked} were asked for")
        return ids

    def _rows_at_once(self, longest: int, steps: int) -> int:
        """How many rows fit into the memory of one batch, counting caches and the prompt's logits."""
        position = sum(4 * heads * size for _, heads, size in _cache_inputs(self.session))
        row = position * (longest + steps) + 4 * longest * _vocab(self.session)
        return min(LARGEST_BATCH, max(1, BATCH_BYTES // max(row, 1)))

    def _generate(self, prompts: Sequence[Ids], sampling: Sampling, first: int) -> list[Array]:
        """Decode one batch until every row has ended. `first` is the place of its first prompt in the whole list."""
        batch = _Batch(self.session, len(prompts), max(map(len, prompts)) + sampling.max_new_tokens)
        with self._lock:
            prefill = batch.prefill(prompts)
            logits = np.stack([rows[-1] for rows in prefill])
        return side_by_side(logits, self._in_turn(batch), sampling, self.eos, first)

    def _tokens(self, prompt: Ids, sampling: Sampling) -> Iterator[int]:
        """Tokens one by one, as `generate` draws them for a single prompt."""
        batch = _Batch(self.session, 1, len(prompt) + sampling.max_new_tokens)
        with self._lock:
            logits = batch.prefill([prompt])[0][-1]
        yield from one_by_one(logits, self._in_turn(batch), sampling, self.eos)

    def _in_turn(self, batch: _Batch) -> Step:
        """A step of the batch that waits for those of other threads."""

        def step(tokens: Sequence[int], live: NDArray[np.bool_]) -> Array:
            with self._lock:
                return batch.step(tokens, live)

        return step

    def _stream(self, prompt: Ids, sampling: Sampling) -> Iterator[Chunk]:
        return pieces(self.tokenizer, self._tokens(prompt, sampling), sampling)


class _Batch:
    """The KV caches of some rows and the buffers of a step, allocated once and bound once."""

    def __init__(self, session: Any, rows: int, capacity: int) -> None:
        import onnxruntime as ort

        self.session, self.capacity = session, capacity
        self.lengths = np.zeros(rows, dtype=np.int64)
        self.caches = {
            name: ort.OrtValue.ortvalue_from_numpy(np.zeros((rows, heads, capacity, size), dtype=np.float32), "cpu")
            for name, heads, size in _cache_inputs(session)
        }
        self.ids = np.zeros((rows, 1), dtype=np.int64)
        self.mask = np.zeros((rows, capacity), dtype=np.int64)
        self.logits = np.zeros((rows, 1, _vocab(session)), dtype=np.float32)
        self._binding = self._bind(self.ids, self.mask, self.logits)

    def prefill(self, prompts: Sequence[Ids]) -> list[Array]:
        """Read the prompts; logits (seq, vocab) for each. Shorter ones are padded at the end, masked out."""
        longest = max(map(len, prompts))
        ids, mask = np.zeros((2, len(prompts), longest), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
            mask[row, : len(prompt)] = 1
        self.lengths[:] = mask.sum(axis=1)
        self.mask[:, :longest] = mask
        logits = np.empty((len(prompts), longest, self.logits.shape[-1]), dtype=np.float32)
        self.session.run_with_iobinding(self._bind(ids, mask, logits))
        return [rows[: len(prompt)] for rows, prompt in zip(logits, prompts, strict=True)]

    def step(self, tokens: Sequence[int], live: NDArray[np.bool_]) -> Array:
        """Logits (rows, vocab) after one more token in each row; rows that are not live stay where they are.

        The array is overwritten by the next step.
        """
        self.ids[:, 0] = tokens
        rows = np.flatnonzero(live)
        self.mask[rows, self.lengths[rows]] = 1
        self.lengths[rows] += 1
        self.session.run_with_iobinding(self._binding)
        return self.logits[:, 0]

    def _bind(self, ids: Array, mask: Array, logits: Array) -> Any:
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for name, cache in self.caches.items():
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), cache)
        return binding


def _cache_inputs(session: Any) -> list[tuple[str, int, int]]:
    """Name, heads and head size of each cache."""
    inputs = ((i.name, i.shape) for i in session.get_inputs() if i.name.startswith("past_key_values."))
    return [(name, shape[1], shape[3]) for name, shape in inputs]


def _vocab(session: Any) -> int:
    """Width of the logits, the graph's first output."""
    return int(session.get_outputs()[0].shape[-1])
