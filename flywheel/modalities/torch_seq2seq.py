"""The torch reference of an encoder-decoder language model, behind the interface of flywheel.runtimes.seq2seq."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from flywheel.runtimes.base import Array, Sampling
from flywheel.runtimes.drawing import side_by_side
from flywheel.runtimes.seq2seq import checked, padded

Ids = Sequence[int] | NDArray[np.int64]

LARGEST_BATCH = 64
"""Prompts that are decoded side by side."""
LARGEST_LOGITS = 2**22
"""Elements of a batch's logits in `log_likelihood`: 16 MiB of float32."""


class TorchSeq2Seq:
    """Any `AutoModelForSeq2SeqLM` module. Puts the module into evaluation mode.

    `prefix` are the tokens that answers start from, the first of them the decoder's start token.
    """

    def __init__(self, module: torch.nn.Module, eos: frozenset[int], prefix: Sequence[int], context: int) -> None:
        self.module: Any = module.eval()
        self.eos, self.prefix, self.context = eos, list(prefix), context
        self.device = next(module.parameters()).device

    def forward(self, prompt: Ids) -> Array:
        """Logits (prompt, vocab) in float32 of a decoder that reads, behind its start token, the prompt itself."""
        ids = checked(prompt, len(prompt), self.context)
        return self._logits([ids], [ids])[0].cpu().numpy()

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Ids], sampling: Sampling) -> list[Array]:
        """New token ids (steps,) for each prompt, up to and without the end token.

        Prompts are decoded side by side; what is drawn for one does not depend on the others. Raises ValueError where a
        prompt and `max_new_tokens` do not fit into the context.
        """
        known = [checked(prompt, sampling.max_new_tokens, self.context) for prompt in prompts]
        found: list[Array] = []
        for first in range(0, len(known), LARGEST_BATCH):
            batch = known[first : first + LARGEST_BATCH]
            state = self._begin(batch)
            logits = self._read(state, np.tile(np.array(self.prefix), (len(batch), 1)))
            found += side_by_side(logits, partial(self._step, state), sampling, self.eos, first)
        return found

    def log_likelihood(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> list[NDArray[np.float64]]:
        """Log-probability in nats of every token of an answer given its prompt, shape (len(answer),) for each.

        Raises ValueError where both do not fit into the context.
        """
        known = [checked(p, len(a), self.context) for p, a in zip(prompts, answers, strict=True)]
        order = sorted(range(len(known)), key=lambda i: (len(answers[i]), len(known[i])))
        found: list[NDArray[np.float64]] = [np.empty(0)] * len(known)
        while order:
            size = max(1, LARGEST_LOGITS // (len(answers[order[-1]]) * int(self.module.config.vocab_size)))
            batch = [order.pop() for _ in range(min(len(order), size, LARGEST_BATCH))]
            told = [np.asarray(answers[i], dtype=np.int64) for i in batch]
            nats = self._surprise([known[i] for i in batch], told)
            for i, row in zip(batch, nats, strict=True):
                found[i] = -row[: len(answers[i])]
        return found

    @torch.inference_mode()
    def _surprise(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> NDArray[np.float64]:
        """Nats of each token (rows, longest answer)."""
        logits = self._logits(prompts, answers)
        targets = self._tensor(padded(answers)[0])
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        return nats.double().cpu().numpy()

    @torch.inference_mode()
    def _logits(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> torch.Tensor:
        """Logits (rows, longest answer, vocab) in float32 of answers that are known."""
        ids, mask = map(self._tensor, padded(prompts))
        told = padded(answers)[0]
        told = np.concatenate([np.full((len(told), 1), self.prefix[0]), told[:, :-1]], axis=1)
        out = self.module(input_ids=ids, attention_mask=mask, decoder_input_ids=self._tensor(told), use_cache=False)
        logits: torch.Tensor = out.logits.float()
        return logits

    def _begin(self, prompts: Sequence[Ids]) -> dict[str, Any]:
        """What the steps of a batch go on with; they put their cache into it."""
        ids, mask = map(self._tensor, padded(prompts))
        encoded = self.module.get_encoder()(input_ids=ids, attention_mask=mask)
        return {"encoder_outputs": encoded, "attention_mask": mask, "past_key_values": None}

    def _step(self, state: dict[str, Any], tokens: Sequence[int], live: NDArray[np.bool_]) -> Array:
        return self._read(state, np.array(tokens, dtype=np.int64)[:, None])

    def _read(self, state: dict[str, Any], ids: NDArray[np.int64]) -> Array:
        """Logits (rows, vocab) after the tokens `ids` (rows, seq)."""
        out = self.module(**state, decoder_input_ids=self._tensor(ids), use_cache=True)
        state["past_key_values"] = out.past_key_values
        logits: Array = out.logits[:, -1].float().cpu().numpy()
        return logits

    def _tensor(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)
