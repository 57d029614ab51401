"""Evaluation: the final weights on held-out rows, beside what they started from and beside simple baselines.

Held-out rows of the first stage are compared with the untrained model (`before`); rows of the second stage with the
model before fine-tuning. The same rows, prompts and seeds are used on both sides, and on the champion's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from flywheel import arguments
from flywheel.artifact import sha256
from flywheel.errors import RecipeError
from flywheel.fingerprint import fingerprint, of_source
from flywheel.generations import Remembered
from flywheel.metrics import score_files
from flywheel.metrics.base import Exam
from flywheel.metrics.metric import Metric
from flywheel.metrics.table import METRICS
from flywheel.modalities.base import Modality, Model, Paints, Picture, Speaks
from flywheel.modalities.rooms import ROOMS, room
from flywheel.progress import Progress
from flywheel.recipe import Recipe
from flywheel.record import Record, content, read_rows
from flywheel.runtimes.base import Predictor, Sampling

SECOND = "finetune_"
PARTS = ("heldout", "finetune_heldout")
"""Held-out rows of the first stage and, where there is one, of the second."""


@dataclass(frozen=True)
class Sitting:
    """One evaluation: what is asked, and where answers are kept."""

    recipe: Recipe
    rows: Path
    """Directory of validated rows."""
    kept: Path
    """Directory of what models answered before."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables that metrics may name: keys of a judge."""

    _parts: dict[str, list[Record]] = field(default_factory=dict, init=False, repr=False)

    def part(self, name: str) -> list[Record]:
        """The rows of a part, read once; none where there is no such part."""
        if name not in self._parts:
            file = self.rows / f"{name}.parquet"
            self._parts[name] = list(read_rows(file)) if file.exists() else []
        return self._parts[name]


def evaluate(sitting: Sitting, stages: tuple[Path, Path], out: Path, progress: Progress) -> dict[str, Any]:
    """Write metrics.json, samples and scores; return `{"metrics": {name: Metric.as_dict()}}`.

    `stages` are the model directories after the first and after the last training stage (equal where there is one).
    """
    recipe, modality = sitting.recipe, room(sitting.recipe.model.modality)
    train = sitting.part("train")
    final, asked = _opened(sitting, modality, stages[1])
    measured = _own(sitting, modality, final, asked)
    progress(1, 5, {})
    past: list[Metric] = []
    for name, rows in ((name, sitting.part(name)) for name in PARTS):
        if rows:
            old = modality.build(recipe, train) if name == "heldout" else modality.load(stages[0])
            past += modality.evaluate(modality.predictor(old), old, rows, recipe.evaluate, recipe.seed)
    before = {m.name: m.value for m in _named_apart(past)}
    progress(2, 5, {})
    baselines = modality.baselines(final, train, sitting.part("heldout")) if recipe.evaluate.baselines else {}
    metrics = [replace(m, baseline=baselines.get(m.name), before=before.get(m.name)) for m in measured]
    progress(3, 5, {})
    metrics += _further(sitting, modality, final, asked)
    progress(4, 5, {})
    samples = modality.samples(asked, final, sitting.part("heldout"), recipe.evaluate.generation, recipe.seed)
    _write_samples(samples, out)
    score_files.write(metrics, out)
    summary = {"metrics": {m.name: m.as_dict() for m in metrics}}
    (out / "metrics.json").write_text(json.dumps(summary, indent=1))
    progress(5, 5, {m.name: m.value for m in metrics})
    return summary


def of_champion(sitting: Sitting, champion: Path, challenger: Path, out: Path) -> dict[str, Any]:
    """Write the scores of a champion's weights on the rows that the challenger is measured on; return its metrics.

    A judge that is part of a model is the challenger's for both. `fault` says why it could not be measured.
    """
    modality = room(sitting.recipe.model.modality)
    try:
        model, asked = _opened(sitting, modality, champion, challenger)
    except Exception as error:  # weights of another modality, or of an older release, fail in any way
        return {"metrics": {}, "fault": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    metrics = _own(sitting, modality, model, asked) + _further(sitting, modality, model, asked)
    score_files.write(metrics, out)
    return {"metrics": {m.name: m.as_dict() for m in metrics}, "fault": ""}


def measure(sitting: Sitting, weights: Path, judge: Path) -> list[Metric]:
    """Everything that the recipe asks of one model, without rivals; `judge` is the model whose judge is asked."""
    modality = room(sitting.recipe.model.modality)
    model, asked = _opened(sitting, modality, weights, judge)
    return _own(sitting, modality, model, asked) + _further(sitting, modality, model, asked)


def _opened(sitting: Sitting, modality: Modality, weights: Path, judge: Path | None = None) -> tuple[Model, Predictor]:
    """The model in a directory, and its predictor, which remembers what it answered."""
    model = modality.load(weights)
    if judge is not None and hasattr(modality, "judged_alike"):
        model = modality.judged_alike(model, modality.load(judge))
    predictor = modality.predictor(model)
    if ROOMS[sitting.recipe.model.modality].kind != "text":
        return model, predictor
    files = {str(p.relative_to(weights)): sha256(p) for p in sorted(weights.rglob("*")) if p.is_file()}
    code = of_source(ROOMS[sitting.recipe.model.modality].module, ())
    return model, cast(Predictor, Remembered(predictor, sitting.kept, fingerprint({**files, **code})[:32]))


def _own(sitting: Sitting, modality: Modality, model: Model, asked: Predictor) -> list[Metric]:
    """The metrics of the modality itself."""
    recipe = sitting.recipe
    parts = [rows for name in PARTS if (rows := sitting.part(name))]
    found = [m for rows in parts for m in modality.evaluate(asked, model, rows, recipe.evaluate, recipe.seed)]
    return _named_apart(found)


def _named_apart(metrics: Sequence[Metric]) -> list[Metric]:
    """What the second stage's rows give again is called `finetune_...`."""
    found = dict[str, Metric]()
    for metric in metrics:
        name = f"{SECOND}{metric.name}" if metric.name in found else metric.name
        found[name] = replace(metric, name=name)
    return list(found.values())


def _different(sitting: Sitting, parts: Sequence[str]) -> list[Record]:
    """The rows of several parts; one that is in both as it was counts once."""
    return list({(row.id, content(row)): row for part in parts for row in sitting.part(part)}.values())


def _further(sitting: Sitting, modality: Modality, model: Model, asked: Predictor) -> list[Metric]:
    """The metrics that the recipe names."""
    recipe, generation = sitting.recipe, sitting.recipe.evaluate.generation
    if not recipe.evaluate.metrics:
        return []
    exam = Exam(
        heldout=_different(sitting, PARTS),
        train=_different(sitting, ("train", "finetune_train")),
        num_samples=recipe.evaluate.num_samples,
        sampling=Sampling(
            max_new_tokens=generation.max_new_tokens,
            temperature=generation.temperature if generation.do_sample else 0.0,
            top_k=generation.top_k,
            top_p=generation.top_p,
            seed=recipe.seed,
            num_inference_steps=generation.num_inference_steps,
            guidance_scale=generation.guidance_scale,
        ),
        seed=recipe.seed,
        speaker=modality.speaker(model, asked) if isinstance(modality, Speaks) else None,
        painter=modality.painter(model, asked) if isinstance(modality, Paints) else None,
        kept=sitting.kept,
        environment=sitting.environment,
    )
    found: list[Metric] = []
    for position, (name, given) in enumerate(map(arguments.named, recipe.evaluate.metrics)):
        fresh = METRICS[name].function(name)(exam, **given)
        if twice := {m.name for m in found} & {m.name for m in fresh}:
            raise RecipeError(
                f"evaluate.metrics[{position}]: {name}",
                found=f"another {', '.join(sorted(twice))}",
                expected="metrics of different names",
                remedy="leave one out, or give it another name where it has an argument for that (`task`)",
            )
        found += fresh
    return found


def _write_samples(samples: Any, out: Path) -> None:
    if isinstance(samples, Picture):
        (out / f"{samples.name}.png").write_bytes(samples.png)
    else:
        (out / "samples.json").write_text(json.dumps(samples, indent=1, ensure_ascii=False))
