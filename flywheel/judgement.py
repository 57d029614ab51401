"""What the gate decides on: the figures of every step that measured something, and the champion beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel.comparison import compare_all
from flywheel.gate import Rival
from flywheel.metrics import score_files
from flywheel.recipe import Recipe

Summaries = Mapping[str, Mapping[str, Any]]


def measured(summaries: Summaries) -> dict[str, Mapping[str, Any]]:
    """Metric name → figures: those of `evaluate`, size and time of the precision that `export` serves by default, and
    `contamination` where `validate` looked at it."""
    found = dict(summaries["evaluate"]["metrics"])
    export = summaries["export"]
    served = next(p for p in export["precisions"] if p["precision"] == export["default"])
    found["megabytes"] = _plain(served["bytes"] / 1e6)
    found["milliseconds_per_step"] = _plain(served["milliseconds_per_step"])
    if (share := summaries["validate"].get("contamination")) is not None:
        found["contamination"] = _plain(share["rate"])
    return found


def rival(recipe: Recipe, champion: Mapping[str, Any], scores: tuple[Path, Path]) -> Rival | None:
    """The champion on the same examples; `scores` are the directories of (challenger, champion)."""
    if not champion["version"]:
        return None
    if champion["fault"]:
        return Rival(champion["version"], faults={"": champion["fault"]})
    mine, theirs = map(score_files.read, scores)
    made, faults = compare_all(mine, theirs, recipe.objective.min_effect, recipe.seed)
    return Rival(champion["version"], made, faults)


def _plain(value: float) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "better": "lower"}
