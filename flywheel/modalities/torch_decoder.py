"""The torch reference of a decoder-only language model, behind the interface of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from flywheel.runtimes.base import Array, Sampling
from flywheel.runtimes.sampling import pick, rng_for

Ids = Sequence[int] | NDArray[np.integer]

LARGEST_BATCH = 64
"""Prompts that are decoded side by side."""
LARGEST_LOGITS = 2**22
"""Elements of a batch's logits in `log_likelihood`: 16 MiB of float32, which the allocator uses again."""


class TorchDecoder:
    """Any `AutoModelForCausalLM` module. Puts the module into evaluation mode."""

    def __init__(self, module: torch.nn.Module, eos: frozenset[int], context: int) -> None:
        self.module, self.eos, self.context = module.eval(), eos, context
        self.device = next(module.parameters()).device

    @torch.inference_mode()
    def forward(self, prompt: Ids) -> Array:
        """Logits (seq, vocab) in float32 for token ids (seq,)."""
        ids = torch.tensor([list(prompt)], device=self.device)
        logits: Array = self.module(input_ids=ids, use_cache=False).logits[0].float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Ids], sampling: Sampling) -> list[Array]:
        """New token ids (steps,) for each prompt, up to and without the end token. `stop` is for served text alone.

        Prompts are decoded side by side; what is drawn for one does not depend on the others. Raises ValueError where a
        prompt and `max_new_tokens` do not fit into the context.
        """
        longest = max(map(len, prompts), default=1)
        if not all(map(len, prompts)) or longest + sampling.max_new_tokens > self.context:
            raise ValueError(
                f"prompts of 1 to {self.context - sampling.max_new_tokens} tokens leave room for "
                f"max_new_tokens={sampling.max_new_tokens} in a context of {self.context}; found {longest}"
            )
        starts = range(0, len(prompts), LARGEST_BATCH)
        return [row for i in starts for row in self._generate(prompts[i : i + LARGEST_BATCH], sampling, i)]

    @torch.inference_mode()
    def log_likelihood(self, windows: Sequence[Ids], score_from: Sequence[int]) -> list[NDArray[np.float64]]:
        """Log-probability in nats of the tokens `window[score_from:]` given those before them; `score_from` >= 1.

        Shape (len(window) - score_from,) for each window. Computed in bfloat16 with float32 logits where the processor
        has it: about four times as fast, and nothing that an average over a text shows.
        """
        order = sorted(range(len(windows)), key=lambda i: (len(windows[i]) - score_from[i], len(windows[i])))
        vocab = int(self.module.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        found: list[NDArray[np.float64]] = [np.empty(0)] * len(windows)
        while order:
            scored = len(windows[order[-1]]) - score_from[order[-1]]
            batch = [order.pop() for _ in range(min(len(order), max(1, LARGEST_LOGITS // (max(scored, 1) * vocab))))]
            for i, scores in zip(batch, self._scores([windows[i] for i in batch], scored), strict=True):
                found[i] = scores[len(scores) - len(windows[i]) + score_from[i] :]
        return found

    def _scores(self, windows: Sequence[Ids], scored: int) -> list[NDArray[np.float64]]:
        """Log-probabilities of at least the last `scored` tokens of each window. Shorter windows are padded on the
        right, where no token sees the padding."""
        longest = max(map(len, windows))
        ids = torch.zeros((len(windows), longest), dtype=torch.long)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = torch.as_tensor(np.asarray(window, dtype=np.int64))
        ids = ids.to(self.device)
        kept = min(longest - 1, longest - min(map(len, windows)) + scored)
        with _fast_matmul(self.device):
            logits = self.module(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=kept).logits
        targets = ids[:, longest - kept :]
        surprise = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        nats = -surprise.view(targets.shape).double().cpu().numpy()
        return [row[: len(row) - longest + len(window)] for row, window in zip(nats, windows, strict=True)]

    def _generate(self, prompts: Sequence[Ids], sampling: Sampling, first: int) -> list[Array]:
        """One batch, padded on the left. `first` is the place of its first prompt in the whole list."""
        rngs = [rng_for(sampling, first + i) for i in range(len(prompts))]
        ids, mask = self._left_padded(prompts)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        drawn: list[list[int]] = [[] for _ in prompts]
        live, cache = [True] * len(prompts), None
        for _ in range(sampling.max_new_tokens):
            out = self.module(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, logits = out.past_key_values, out.logits[:, -1].float().cpu().numpy()
            for i in (i for i, alive in enumerate(live) if alive):
                token = pick(logits[i], sampling, rngs[i])
                live[i] = sampling.ignore_eos or token not in self.eos
                drawn[i] += [token] if live[i] else []
            if not any(live):
                break
            ids = torch.tensor([[tokens[-1] if tokens else 0] for tokens in drawn], device=self.device)
            mask = F.pad(mask, (0, 1), value=1)
            positions = positions[:, -1:] + 1
        return [np.array(tokens, dtype=np.int64) for tokens in drawn]

    def _left_padded(self, prompts: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, both (batch, longest)."""
        ids = torch.zeros((len(prompts), max(map(len, prompts))), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, -len(prompt) :] = torch.as_tensor(np.asarray(prompt, dtype=np.int64))
            mask[row, -len(prompt) :] = 1
        return ids.to(self.device), mask.to(self.device)


def _fast_matmul(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the device computes in it natively; elsewhere it would be slower than float32."""
    native = torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)
