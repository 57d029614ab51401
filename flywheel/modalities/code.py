"""Python source code: text whose completions are also judged by whether they parse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flywheel.metrics.code import Completion, function_headers, parse_rate, parses
from flywheel.metrics.metric import Metric
from flywheel.modalities.base import Model
from flywheel.modalities.decoder_model import context, decode, tokenise
from flywheel.modalities.text_causal import TextCausal, content, drawing
from flywheel.modalities.token_rows import Ids
from flywheel.recipe import Evaluate
from flywheel.record import Record
from flywheel.runtimes.base import Predictor


class Code(TextCausal):
    """The room of source code. Documents are files; a pair is a function and its docstring."""

    answer = "docstring"
    example = "def read_lines(path):"

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        """Those of text, and whether the file, or the function of a pair, `parses`."""
        source = content(record) if record.completion is None else record.prompt or ""
        return {**super().facts(record), "parses": parses(source)}

    def _openings(self, model: Model, rows: Sequence[Record], count: int, room: int) -> list[Ids]:
        """Headers of functions, or the start of files where there are none."""
        return header_ids(model, rows, count, room) or super()._openings(model, rows, count, room)

    def _completion_metrics(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """`parse_rate` of `num_samples` completed functions, where the rows have functions."""
        sampling = drawing(config.generation, seed, context(model) // 2)
        prompts = header_ids(model, rows, config.num_samples, context(model) - sampling.max_new_tokens)
        completions = [
            Completion(decode(model, prompt), decode(model, ids), ended=len(ids) < sampling.max_new_tokens)
            for prompt, ids in zip(prompts, predictor.generate(prompts, sampling), strict=True)
        ]
        return [parse_rate(completions, seed)] if completions else []


def header_ids(model: Model, rows: Sequence[Record], count: int, room: int) -> list[Ids]:
    """Token ids of at most `count` function headers that take at most `room` tokens."""
    found: list[Ids] = []
    for header in headers(rows):
        ids = tokenise(model, [header], template=True)[0]
        found += [ids] if len(ids) <= room else []
        if len(found) == count:
            break
    return found


def headers(rows: Sequence[Record]) -> Iterator[str]:
    """Function headers of files in a fixed random order: one of each file, then a second of each, and so on."""
    rng = np.random.default_rng(0)
    waiting = [list(function_headers(rows[i].text or "")) for i in rng.permutation(len(rows))]
    for file in waiting:
        rng.shuffle(file)
    while any(waiting):
        yield from (file.pop() for file in waiting if file)
