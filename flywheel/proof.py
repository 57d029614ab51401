"""The proof of an export: the same questions to torch and to onnxruntime, and what each precision must answer.

Nothing here knows a modality: a room gives the prompts and the metric, a predictor answers `forward` and `generate`.
float32 must equal torch: outputs within a bound, greedy decoding step for step. A smaller precision must keep the
objective's metric within a bound and be faster than float32, both measured here, in turns, on equal threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from flywheel.errors import ExportError
from flywheel.metrics.metric import Metric
from flywheel.modalities.base import Modality, Model
from flywheel.modalities.rooms import ROOMS
from flywheel.recipe import Recipe
from flywheel.record import Record, texts
from flywheel.runtimes.base import Array, Predictor, Runtime, Sampling
from flywheel.runtimes.session import cores

PROMPTS = 3
"""Held-out prompts that are decoded; each is also one repeat of the speed measurement."""
QUALITY_BYTES = 30_000
QUALITY_SAMPLES = 32
"""How much held-out data, and at most how many samples, the metric is measured on: seconds on two cores. Both sides see
the same, so that the difference is sharper than the metric itself."""

Rows = Sequence[Sequence[Record]]
"""Held-out rows by kind (data; answers); the objective's metric comes from the first kind that yields it."""


@dataclass(frozen=True)
class Answers:
    """What one predictor said to all questions."""

    outputs: Sequence[Array]
    """`forward` of each prompt."""
    samples: Sequence[Array]
    """Greedy `generate` of each prompt."""
    seconds: Sequence[float]
    """Time of each of these."""
    quality: Metric
    """The objective's metric on held-out rows."""


@dataclass(frozen=True)
class Verdict:
    """One precision, compared."""

    precision: str
    max_logit_error: float
    """Largest absolute difference from torch's `forward`."""
    tokens_compared: int
    """Greedy steps compared with torch; values of a picture where there are no steps."""
    tokens_equal: int
    speedup: float
    """Median over the prompts: fp32 against torch, others against fp32."""
    quality_change: float
    """Relative change of the objective's metric against torch; positive is worse."""
    accepted: bool
    reason: str


def prove(
    recipe: Recipe, room: Modality, model: Model, runtimes: Mapping[str, Runtime], rows: Rows
) -> tuple[list[Verdict], dict[str, Answers]]:
    """Ask torch and every runtime (by precision, `fp32` among them) the same, and judge. Also returns all answers.

    Rooms' prompts leave half of a context free, so no more steps than that are compared.
    """
    everyone: dict[str, Predictor] = {"torch": room.predictor(model), **runtimes}
    sample = [_part(kind, recipe.seed) for kind in rows]
    prompts = room.prompts(model, [row for kind in sample for row in kind], PROMPTS)
    if not prompts:
        raise ExportError(
            "proof of the exported model",
            found="no held-out row gives a prompt",
            expected="at least one",
            remedy="Hold out more rows with data.split.heldout.",
        )
    free = runtimes["fp32"].context // 2
    steps = min(recipe.optimize.compare_tokens, free or recipe.optimize.compare_tokens)
    greedy = Sampling(max_new_tokens=steps, temperature=0.0, ignore_eos=True)
    with _equal_threads():
        outputs = {name: [p.forward(prompt) for prompt in prompts] for name, p in everyone.items()}
        samples, seconds = _in_turns(everyone, prompts, greedy)
        quality = {name: _quality(recipe, room, model, p, sample) for name, p in everyone.items()}
    answers = {name: Answers(outputs[name], samples[name], seconds[name], quality[name]) for name in everyone}
    return [judge(recipe, precision, answers) for precision in runtimes], answers


def _in_turns(
    predictors: Mapping[str, Predictor], prompts: Sequence[Any], sampling: Sampling
) -> tuple[dict[str, list[Array]], dict[str, list[float]]]:
    """Greedy samples and their times; predictors take turns, so that a busy moment of the machine hits all of them."""
    samples: dict[str, list[Array]] = {name: [] for name in predictors}
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for prompt in prompts:
        for name, predictor in predictors.items():
            begun = time.perf_counter()
            samples[name] += predictor.generate([prompt], sampling)
            seconds[name].append(time.perf_counter() - begun)
    return samples, seconds


def _quality(recipe: Recipe, room: Modality, model: Model, predictor: Predictor, rows: Rows) -> Metric:
    """The objective's metric; where that is none of the room's own, the first of those stands for it."""
    samples = min(recipe.evaluate.num_samples, QUALITY_SAMPLES)
    config = recipe.evaluate.model_copy(update={"num_samples": samples})
    seen: list[Metric] = []
    for kind in rows:
        metrics = room.evaluate(predictor, model, kind, config, recipe.seed) if kind else []
        for metric in metrics:
            if metric.name == recipe.objective.metric:
                return metric
        seen += metrics
    if seen and recipe.objective.metric not in ROOMS[recipe.model.modality].metrics:
        return seen[0]
    raise ExportError(
        "proof of the exported model",
        found=f"objective.metric is {recipe.objective.metric}",
        expected=f"one of {', '.join(sorted({metric.name for metric in seen}))}",
        remedy="Choose one of these as objective.metric.",
    )


def _part(rows: Sequence[Record], seed: int) -> list[Record]:
    """Rows drawn at random as long as they fit into QUALITY_BYTES; the smallest row where none does."""
    chosen: list[Record] = []
    left = QUALITY_BYTES
    for index in np.random.default_rng(seed).permutation(len(rows)):
        if _bytes(rows[index]) <= left:
            chosen.append(rows[index])
            left -= _bytes(rows[index])
    return chosen or sorted(rows, key=_bytes)[:1]


def _bytes(row: Record) -> int:
    return sum(map(len, [*texts(row), *(part for part in (row.image, row.audio) if part)]))


def judge(recipe: Recipe, precision: str, answers: Mapping[str, Answers]) -> Verdict:
    """Compare one precision's answers with torch's, and with fp32's for the speed of another precision."""
    bounds, torch, own = recipe.optimize, answers["torch"], answers[precision]
    rival = "torch" if precision == "fp32" else "fp32"
    error = max(_difference(a, b) for a, b in zip(own.outputs, torch.outputs, strict=True))
    pairs = [_equal(a, b, bounds.max_logit_error) for a, b in zip(own.samples, torch.samples, strict=True)]
    equal, compared = sum(e for e, _ in pairs), sum(c for _, c in pairs)
    speedup = median(r / s for r, s in zip(answers[rival].seconds, own.seconds, strict=True))
    change = _worsening(own.quality, torch.quality)
    if precision == "fp32":
        accepted = error <= bounds.max_logit_error and equal == compared
        reason = (
            f"outputs within {error:.1e} of torch (bound {bounds.max_logit_error:.0e}), "
            f"{equal} of {compared} greedy steps equal"
        )
    else:
        accepted = change <= bounds.max_quality_change and speedup > 1
        direction = "worse" if change > 0 else "better"
        reason = (
            f"{own.quality.name} {abs(change):.2%} {direction} than torch (bound {bounds.max_quality_change:.2%}), "
            f"{speedup:.2f} times as fast as fp32 (must be above 1)"
        )
    return Verdict(precision, error, compared, equal, speedup, change, accepted, reason)


def _difference(a: Array, b: Array) -> float:
    """Largest absolute difference; what is no number counts as the largest float32."""
    worst = float(np.finfo(np.float32).max)
    return float(np.nan_to_num(np.abs(a.astype(np.float64) - b), nan=worst, posinf=worst).max())


def _equal(a: Array, b: Array, tolerance: float) -> tuple[int, int]:
    """How many values agree, of how many. Steps that only one of both took count as different."""
    size = min(len(a), len(b))
    same = a[:size] == b[:size] if np.issubdtype(b.dtype, np.integer) else np.abs(a[:size] - b[:size]) <= tolerance
    return int(same.sum()), max(a.size, b.size)


def _worsening(own: Metric, reference: Metric) -> float:
    change = own.value - reference.value
    worse = change if reference.better == "lower" else -change
    return worse / (abs(reference.value) or 1.0) + 0.0  # never minus zero


@contextmanager
def _equal_threads() -> Iterator[None]:
    """Give torch as many threads as onnxruntime has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def size(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
