"""Evaluation: the final weights on held-out rows, beside what they started from and beside simple baselines.

Held-out rows of the first stage are compared with the untrained model (`before`); rows of the second stage with the
model before fine-tuning. The same rows, prompts and seeds are used on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flywheel.metrics.metric import Metric
from flywheel.modalities.base import Modality, Model, Picture
from flywheel.modalities.rooms import room
from flywheel.progress import Progress
from flywheel.recipe import Recipe
from flywheel.record import Record, read_rows


def evaluate(recipe: Recipe, rows: Path, stages: tuple[Path, Path], out: Path, progress: Progress) -> dict[str, Any]:
    """Write metrics.json and samples; return `{"metrics": {name: {value, low, high, better, baseline, before}}}`.

    `stages` are the model directories after the first and after the last training stage (equal where there is one).
    """
    modality = room(recipe.model.modality)
    train, heldout = list(read_rows(rows / "train.parquet")), list(read_rows(rows / "heldout.parquet"))
    final = modality.load(stages[1])
    untrained = modality.build(recipe, train)
    progress(0, 4, {})
    metrics = _measure(recipe, modality, heldout, untrained, final)
    progress(1, 4, {})
    answers = rows / "finetune_heldout.parquet"
    if answers.exists():
        metrics += _measure(recipe, modality, list(read_rows(answers)), modality.load(stages[0]), final)
    progress(2, 4, {})
    baselines = modality.baselines(final, train, heldout) if recipe.evaluate.baselines else {}
    metrics = [replace(m, baseline=baselines.get(m.name)) for m in metrics]
    progress(3, 4, {})
    predictor = modality.predictor(final)
    _write_samples(modality.samples(predictor, final, heldout, recipe.evaluate.generation, recipe.seed), out)
    summary = {"metrics": {m.name: m.as_dict() for m in metrics}}
    (out / "metrics.json").write_text(json.dumps(summary, indent=1))
    progress(4, 4, {m.name: m.value for m in metrics})
    return summary


def _measure(recipe: Recipe, modality: Modality, rows: Sequence[Record], before: Model, after: Model) -> list[Metric]:
    """Metrics of `after`, each with the value of `before`."""
    old, new = (
        modality.evaluate(modality.predictor(m), m, rows, recipe.evaluate, recipe.seed) for m in (before, after)
    )
    past = {m.name: m.value for m in old}
    return [replace(m, before=past.get(m.name)) for m in new]


def _write_samples(samples: Any, out: Path) -> None:
    if isinstance(samples, Picture):
        (out / f"{samples.name}.png").write_bytes(samples.png)
    else:
        (out / "samples.json").write_text(json.dumps(samples, indent=1, ensure_ascii=False))
