"""Drawing the next token from logits: one implementation for the torch reference and for onnxruntime.

The filters are those of transformers' GenerationConfig: temperature, then top-k, then top-p (Holtzman et al. 2020).
Tokens that tie with the last one admitted are admitted too, and the draw walks the admitted tokens in the order of
their ids: rounding that swaps two nearly equal logits moves no other token's share of the unit interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.runtimes.base import Sampling


def rng_for(sampling: Sampling, index: int) -> np.random.Generator:
    """The generator of one prompt: it depends on the seed and on the prompt's place, not on how prompts are batched."""
    return np.random.default_rng((sampling.seed, sampling.places[index] if sampling.places else index))


def pick(logits: NDArray[Any], sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token id for logits of shape (vocab,). Temperature 0 takes the likeliest, of equals the lowest id.

    A drawn token takes exactly one number from `rng`, whatever the filters admit.
    """
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    scores = logits.astype(np.float64) / sampling.temperature
    if 0 < sampling.top_k < len(scores):
        least = np.partition(scores, -sampling.top_k)[-sampling.top_k]
        scores = np.where(scores >= least, scores, -np.inf)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    if sampling.top_p < 1:
        shares = np.where(shares >= _nucleus(shares, sampling.top_p), shares, 0.0)
    steps = np.cumsum(shares)
    return int(np.searchsorted(steps, rng.random() * steps[-1], side="right"))


def _nucleus(shares: NDArray[np.float64], top_p: float) -> float:
    """The smallest share among the fewest tokens that together reach `top_p`."""
    ordered = np.sort(shares)[::-1]
    last = np.searchsorted(np.cumsum(ordered), top_p)
    return float(ordered[min(int(last), len(ordered) - 1)])
