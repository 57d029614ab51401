"""From logits to tokens and from tokens to streamed text: what every runtime that writes text does around its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flywheel.runtimes.base import Array, Chunk, Sampling
from flywheel.runtimes.sampling import pick, rng_for
from flywheel.runtimes.stops import StopScanner

Step = Callable[[Sequence[int], NDArray[np.bool_]], Array]
"""One more token for each row, and which rows still count → logits (rows, vocab)."""


def side_by_side(logits: Array, step: Step, sampling: Sampling, ends: frozenset[int], first: int) -> list[Array]:
    """Token ids (steps,) of each row, up to and without an end token, for logits (rows, vocab) of the first step.

    `first` is the place of the first row among all prompts of the caller: rows draw from their own generators.
    """
    rngs = [rng_for(sampling, first + i) for i in range(len(logits))]
    drawn: list[list[int]] = [[] for _ in rngs]
    live = np.ones(len(rngs), dtype=bool)
    for number in range(sampling.max_new_tokens):
        for i in np.flatnonzero(live):
            token = pick(logits[i], sampling, rngs[i])
            if token in ends and not sampling.ignore_eos:
                live[i] = False
            else:
                drawn[i].append(token)
        if not live.any() or number + 1 == sampling.max_new_tokens:
            break
        logits = step([tokens[-1] if tokens else 0 for tokens in drawn], live)
    return [np.array(tokens, dtype=np.int64) for tokens in drawn]


def one_by_one(logits: Array, step: Step, sampling: Sampling, ends: frozenset[int]) -> Iterator[int]:
    """The tokens that `side_by_side` draws for a single row, as they come; `logits` (vocab,)."""
    rng, alone = rng_for(sampling, 0), np.ones(1, dtype=bool)
    for number in range(sampling.max_new_tokens):
        token = pick(logits, sampling, rng)
        if token in ends and not sampling.ignore_eos:
            return
        yield token
        if number + 1 < sampling.max_new_tokens:
            logits = step([token], alone)[0]


def pieces(tokenizer: Any, tokens: Iterator[int], sampling: Sampling) -> Iterator[Chunk]:
    """Tokens as text, piece by piece, cut before the first stop string; a character split over tokens comes whole.

    Special tokens are not shown. `tokens` of all pieces add up to the tokens drawn.
    """
    from tokenizers.decoders import DecodeStream

    decoder, scanner = DecodeStream(skip_special_tokens=True), StopScanner(sampling.stop)
    drawn: list[int] = []
    decoded, told = "", 0
    for token in tokens:
        drawn.append(token)
        piece = decoder.step(tokenizer, token) or ""
        decoded += piece
        shown = scanner.push(piece)
        if scanner.stopped:
            yield Chunk(shown, len(drawn) - told, "stop")
            return
        if shown:
            yield Chunk(shown, len(drawn) - told)
            told = len(drawn)
    # A character that the last token leaves unfinished is decoded as U+FFFD, as for the whole text at once.
    rest = scanner.push(tokenizer.decode(drawn).removeprefix(decoded)) + scanner.flush()
    ended: Literal["stop", "length"] = "length" if len(drawn) == sampling.max_new_tokens else "stop"
    yield Chunk(rest, len(drawn) - told, "stop" if scanner.stopped else ended)
