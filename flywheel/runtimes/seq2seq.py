"""An encoder-decoder language model (T5, BART) on plain onnxruntime: encoded once, decoded with a KV cache.

`encoder.onnx` takes `input_ids` and `attention_mask` (batch, prompt) and gives what every decoder block looks at of the
prompt: `cross.N.key|value (batch, heads, prompt, size)`. `decoder.onnx` takes `input_ids (batch, seq)`, the mask,
these, and `past_key_values.N.key|value (batch, heads, past, size)`; it gives `logits (batch, seq, vocab)` and
`present.N.key|value`, which are the next step's past. Results stay where onnxruntime made them; growing the cache by a
token copies it once. Not covered: beam search, CUDA.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.errors import ServingError
from flywheel.runtimes.base import Array, Chunk, Kind, Sampling
from flywheel.runtimes.drawing import one_by_one, pieces, side_by_side
from flywheel.runtimes.session import open_session

Ids = NDArray[np.int64]

BATCH_BYTES = 256 * 2**20
"""Memory that the caches of one batch may take."""
LARGEST_BATCH = 32
"""Prompts that `generate` decodes side by side."""


class Seq2Seq:
    """A served encoder-decoder: `directory/precision/{encoder,decoder}.onnx` and `directory/tokenizer.json`.

    `manifest` holds, named as in transformers, `eos_token_id` (a list), `decoder_start_token_id`,
    `forced_bos_token_id` (or null) and `max_position_embeddings`, which prompt and answer share. A prompt is an array
    of token ids (prompt,); strings are encoded with the tokenizer's own template. Calls from several threads take turns
    step by step.
    """

    kind: Kind = "text"

    def __init__(self, directory: Path, manifest: Mapping[str, Any], precision: str) -> None:
        from tokenizers import Tokenizer

        files = [directory / precision / f"{stem}.onnx" for stem in ("encoder", "decoder")]
        if missing := [file.name for file in files if not file.is_file()]:
            raise ServingError(
                f"model bundle {directory.name}",
                found=f"no {' and no '.join(missing)} in {precision}/",
                expected="an encoder and a decoder",
                remedy="Export the model again.",
            )
        self.encoder, self.decoder = (open_session(file, gpu=False) for file in files)
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.eos = frozenset(manifest["eos_token_id"])
        self.start = int(manifest["decoder_start_token_id"])
        forced = manifest["forced_bos_token_id"]
        self.prefix = [self.start] if forced is None else [self.start, int(forced)]
        self.context = int(manifest["max_position_embeddings"])
        self._lock = threading.Lock()

    def count(self, prompt: str) -> int:
        """Prompt length in tokens."""
        return len(self._encode(prompt))

    def forward(self, prompt: Sequence[int] | Ids) -> Array:
        """Logits (prompt, vocab) of a decoder that reads, behind its start token, the very prompt that the encoder
        read. Raises ValueError where both do not fit into the context."""
        ids = checked(prompt, len(prompt), self.context)
        return self._logits(ids, np.concatenate([[self.start], ids[:-1]]))

    def generate(self, prompts: Sequence[Sequence[int] | Ids], sampling: Sampling) -> list[Array]:
        """New token ids (steps,) for each prompt, up to and without the end token. `stop` is for `stream` alone.

        Prompts are decoded side by side; which prompts share a batch does not change what is drawn for them.
        Raises ValueError where a prompt and `max_new_tokens` do not fit into the context.
        """
        encoded = [checked(prompt, sampling.max_new_tokens, self.context) for prompt in prompts]
        size = self._rows_at_once(max(map(len, encoded), default=1), sampling.max_new_tokens)
        found: list[Array] = []
        for first in range(0, len(encoded), size):
            state, logits = self._begin(encoded[first : first + size])
            found += side_by_side(logits, partial(self._step, state), sampling, self.eos, first)
        return found

    def log_likelihood(
        self, prompts: Sequence[Sequence[int] | Ids], answers: Sequence[Sequence[int] | Ids]
    ) -> list[Array]:
        """Log-probability in nats of every token of an answer given its prompt, shape (len(answer),) for each.

        Raises ValueError where both do not fit into the context.
        """
        found = []
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = np.asarray(answer, dtype=np.int64)
            logits = self._logits(checked(prompt, len(ids), self.context), np.concatenate([[self.start], ids[:-1]]))
            logits = logits - logits.max(axis=1, keepdims=True)
            chosen = np.take_along_axis(logits, ids[:, None], axis=1)[:, 0]
            found.append(chosen.astype(np.float64) - np.log(np.exp(logits).sum(axis=1, dtype=np.float64)))
        return found

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[Chunk]:
        """An answer piece by piece, as flywheel.runtimes.drawing.pieces says.

        Raises ValueError at once where the prompt and `max_new_tokens` do not fit into the context.
        """
        ids = checked(self._encode(prompt), sampling.max_new_tokens, self.context)
        return pieces(self.tokenizer, self._tokens(ids, sampling), sampling)

    def picture(self, prompt: str, sampling: Sampling) -> bytes:
        """Raises ValueError: this model writes text."""
        raise ValueError("this model writes text; it makes no pictures")

    def _encode(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(prompt).ids
        return ids

    def _tokens(self, prompt: Ids, sampling: Sampling) -> Iterator[int]:
        state, logits = self._begin([prompt])
        yield from one_by_one(logits[0], partial(self._step, state), sampling, self.eos)

    def _begin(self, prompts: Sequence[Ids]) -> tuple[_State, Array]:
        """Encode prompts and read the decoder's first tokens: what the steps go on with, and logits (rows, vocab)."""
        with self._lock:
            state = _State(self.encoder, self.decoder, prompts)
            logits = state.step(np.tile(np.array(self.prefix, dtype=np.int64), (len(prompts), 1)))
        return state, logits[:, -1]

    def _step(self, state: _State, tokens: Sequence[int], live: NDArray[np.bool_]) -> Array:
        """Rows that have ended go on beside the others; nobody reads what they say."""
        with self._lock:
            return state.step(np.array(tokens, dtype=np.int64)[:, None])[:, -1]

    def _logits(self, prompt: Ids, told: Ids) -> Array:
        with self._lock:
            logits: Array = _State(self.encoder, self.decoder, [prompt]).step(told[None])[0]
        return logits

    def _rows_at_once(self, longest: int, steps: int) -> int:
        """How many rows fit into the memory of one batch: past and present, and what is looked at of the prompt."""
        position = sum(4 * heads * size for _, heads, size in _pasts(self.decoder))
        return min(LARGEST_BATCH, max(1, BATCH_BYTES // max(position * (longest + 2 * steps), 1)))


class _State:
    """Some prompts, encoded, and the decoder's cache, which grows with each step."""

    def __init__(self, encoder: Any, decoder: Any, prompts: Sequence[Ids]) -> None:
        import onnxruntime as ort

        self.decoder = decoder
        ids, self.mask = padded(prompts)
        binding = encoder.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", self.mask)
        self.kept = _run(encoder, binding)
        for name, heads, size in _pasts(decoder):
            nothing = np.zeros((len(prompts), heads, 0, size), dtype=np.float32)
            self.kept[name] = ort.OrtValue.ortvalue_from_numpy(nothing, "cpu")

    def step(self, ids: Ids) -> Array:
        """Logits (rows, seq, vocab) after the tokens `ids` (rows, seq), each row's own."""
        ids = np.ascontiguousarray(ids)
        binding = self.decoder.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", self.mask)
        for name, value in self.kept.items():
            binding.bind_ortvalue_input(name, value)
        made = _run(self.decoder, binding)
        logits: Array = made.pop("logits").numpy()
        self.kept |= {name.replace("present", "past_key_values"): value for name, value in made.items()}
        return logits


def checked(prompt: Sequence[int] | Ids, steps: int, context: int) -> Ids:
    """A prompt as an array. Raises ValueError where it is empty or, with `steps` more tokens, longer than `context`."""
    ids = np.asarray(prompt, dtype=np.int64)
    if len(ids) == 0:
        raise ValueError("the prompt is empty; at least 1 token is needed")
    if len(ids) + steps > context:
        asked = f"{len(ids)} in the prompt and {steps} in the answer"
        raise ValueError(f"this model's context is {context} tokens; {asked} were asked for")
    return ids


def padded(prompts: Sequence[Sequence[int] | Ids]) -> tuple[Ids, Ids]:
    """Token ids and mask (rows, longest); shorter prompts are padded at their end."""
    ids, mask = np.zeros((2, len(prompts), max(map(len, prompts))), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt
        mask[row, : len(prompt)] = 1
    return ids, mask


def _run(session: Any, binding: Any) -> dict[str, Any]:
    """All outputs by name, left where onnxruntime made them."""
    names = [output.name for output in session.get_outputs()]
    for name in names:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    return dict(zip(names, binding.get_outputs(), strict=True))


def _pasts(decoder: Any) -> list[tuple[str, int, int]]:
    """Name, heads and head size of each cache."""
    inputs = ((i.name, i.shape) for i in decoder.get_inputs() if i.name.startswith("past_key_values."))
    return [(name, shape[1], shape[3]) for name, shape in inputs]
