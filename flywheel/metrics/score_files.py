"""The examples behind the metrics of an evaluation in files: arrays, and beside them what they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from flywheel.errors import ArtifactError
from flywheel.metrics.metric import Better, Metric
from flywheel.metrics.scores import Scores

FACTS, ARRAYS = "scores.json", "scores.safetensors"


def write(metrics: Iterable[Metric], directory: Path) -> None:
    """Write the scores of those that have some."""
    facts, arrays = {}, {}
    for metric in metrics:
        if metric.scores is None:
            continue
        scores = metric.scores
        facts[metric.name] = {"better": metric.better, "how": scores.how, "ids": scores.ids}
        arrays[f"{metric.name}/parts"] = np.ascontiguousarray(scores.parts)
        if scores.fixed is not None:
            arrays[f"{metric.name}/fixed"] = np.ascontiguousarray(scores.fixed)
    (directory / FACTS).write_text(json.dumps(facts))
    save_file(arrays, directory / ARRAYS)


def read(directory: Path) -> dict[str, tuple[Better, Scores]]:
    """What `write` wrote: metric name → its better side and its scores. Raises ArtifactError."""
    try:
        facts, arrays = json.loads((directory / FACTS).read_text()), load_file(directory / ARRAYS)
        return {
            name: (
                fact["better"],
                Scores(arrays[f"{name}/parts"], fact["how"], tuple(fact["ids"]), arrays.get(f"{name}/fixed")),
            )
            for name, fact in facts.items()
        }
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"scores in {directory}", found=str(error), expected=f"{FACTS} and {ARRAYS}", remedy="evaluate again"
        ) from error
