"""What a version says of itself beside what is served: recipe, data, evaluation and packages, as small files.

recipe.yaml         as it was resolved, overrides and defaults included
datasets.json       sources with licence, counts and fingerprint; the validated rows; what the weights started from
evaluation.json     metrics with intervals, and the gate's decision with its reasons and comparisons
evaluation.html     the same for people (flywheel.evaluation_page)
requirements.lock   every package, `name==version`
sbom.cdx.json       the same for programs: CycloneDX 1.6
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

import yaml

from flywheel import artifact, packages, plan
from flywheel.recipe import Recipe

RECIPE, DATASETS, EVALUATION = "recipe.yaml", "datasets.json", "evaluation.json"
LOCK, SBOM = "requirements.lock", "sbom.cdx.json"
COMPARED = (RECIPE, DATASETS, EVALUATION, LOCK)
"""What `differences` reads."""
STAGES = ("finetune", "train")
"""Steps that leave weights, the last one first."""

Summaries = Mapping[str, Mapping[str, Any]]
Marks = Mapping[str, str]
"""Step → fingerprint of its artifact."""


def write(recipe: Recipe, store: Path, marks: Marks, summaries: Summaries, out: Path) -> None:
    """Write all of them into `out`. Raises ArtifactError where the artifacts of the data are not in the store."""
    written = recipe.model_dump(mode="json", by_alias=True)
    found = packages.installed()
    (out / RECIPE).write_text(yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
    (out / DATASETS).write_text(_json(datasets(recipe, store, marks)))
    (out / EVALUATION).write_text(_json(evaluation(recipe, summaries)))
    (out / LOCK).write_text(packages.lock(found))
    weights = artifact.load(artifact.location(store, last_stage(marks), marks[last_stage(marks)]))
    made = datetime.fromisoformat(weights.created)
    (out / SBOM).write_text(packages.bill(found, recipe.name, weights.fingerprint, made))


def last_stage(marks: Marks) -> str:
    """The step that made the weights."""
    return next(name for name in STAGES if name in marks)


def datasets(recipe: Recipe, store: Path, marks: Marks) -> dict[str, Any]:
    """`sources`: name → type, license, rows read and kept, number of files and sha256 over all of them; `rows`: split →
    number and sha256 of its Parquet file; `base`: what the weights started from, or None."""
    made = {step: artifact.load(artifact.location(store, step, marks[step])) for step in ("ingest", "validate")}
    files = {
        name.removeprefix("file:"): mark
        for name, mark in made["ingest"].ingredients.items()
        if name.startswith("file:")
    }
    valid = made["validate"]
    return {
        "sources": {
            name: {
                "type": count.get("type", ""),
                "license": count.get("license", ""),
                "read": count["read"],
                "kept": count["kept"],
                **_digest({n: mark for n, mark in files.items() if n.startswith(f"{name}/")}),
            }
            for name, count in made["ingest"].summary["sources"].items()
        },
        "rows": {
            split: {"rows": number, "sha256": valid.files[f"{split}.parquet"]}
            for split, number in valid.summary["rows"].items()
            if f"{split}.parquet" in valid.files
        },
        "base": _base(recipe, store, marks),
    }


def _base(recipe: Recipe, store: Path, marks: Marks) -> dict[str, Any] | None:
    """The checkpoint that a recipe names: its name, and the sha256 over its files where it is a directory. An adapter
    is merged into the weights; the sha256 of those that it was made for stands beside it."""
    if recipe.model.path is None:
        return None
    path = recipe.model.path
    ingredients = artifact.load(artifact.location(store, "train", marks["train"])).ingredients
    start = f"file:{path.rstrip('/')}/"
    files = {name.removeprefix(start): mark for name, mark in ingredients.items() if name.startswith(start)}
    found: dict[str, Any] = {"path": bare(path), **(_digest(files) if files else {})}
    adapter = artifact.location(store, last_stage(marks), marks[last_stage(marks)]) / "adapter" / "base.json"
    if adapter.is_file():
        found["adapter_base_sha256"] = json.loads(adapter.read_bytes())["sha256"]
    return found


def evaluation(recipe: Recipe, summaries: Summaries) -> dict[str, Any]:
    """`objective` (its metric), `metrics`, `gate` with its comparisons, `champion` (version and metrics on the same
    rows), `precisions` that were exported."""
    champion = summaries.get("champion", {})
    return {
        "objective": recipe.objective.metric,
        "metrics": summaries["evaluate"]["metrics"],
        "gate": summaries["gate"],
        "champion": {"version": champion.get("version", 0), "metrics": champion.get("metrics", {})},
        "precisions": summaries["export"]["precisions"],
    }


def bare(path: str) -> str:
    """The last part of a path of the file system; a hub id (`owner/name`) stays whole."""
    return PurePath(path).name if path.startswith(("/", ".", "~")) else path


def _digest(files: Mapping[str, str]) -> dict[str, Any]:
    """Number of files, and one sha256 over names and contents; a name with a note in brackets is the list of them."""
    lines = "".join(f"{name} {mark}\n" for name, mark in sorted(files.items()))
    return {
        "files": sum(not name.endswith(")") for name in files),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


# ---------------------------------------------------------------- two versions


def differences(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> dict[str, Any]:
    """What differs between the files of two versions, by the names in COMPARED.

    `recipe` and `data`: lines; `metrics`: name → the figures of both, also of equal ones; `packages`: name → both
    versions, empty where it is not there; `missing`: files that one of them, an older one, does not have.
    """
    recipes = [_recipe(files) for files in (one, other)]
    data = [_loaded(files, DATASETS) for files in (one, other)]
    measured = [_loaded(files, EVALUATION).get("metrics", {}) for files in (one, other)]
    locks = [packages.locked(files.get(LOCK, b"").decode()) for files in (one, other)]
    return {
        "recipe": [line.removeprefix("recipe ") for line in plan.changes(*recipes)],
        "data": [line.removeprefix("recipe ") for line in plan.changes(*map(_keyed, data))],
        "metrics": {n: [m.get(n) for m in measured] for n in dict.fromkeys([*measured[0], *measured[1]])},
        "packages": {
            name: [lock.get(name, "") for lock in locks]
            for name in sorted({*locks[0], *locks[1]})
            if locks[0].get(name) != locks[1].get(name)
        },
        "missing": [name for name in COMPARED if name not in one or name not in other],
    }


def _recipe(files: Mapping[str, bytes]) -> dict[str, str]:
    return _keyed(yaml.safe_load(files.get(RECIPE, b"{}")))


def _keyed(values: Mapping[str, Any]) -> dict[str, str]:
    """Each top-level key as `plan.changes` reads it: as JSON."""
    return {f"recipe:{key}": json.dumps(value, sort_keys=True) for key, value in values.items()}


def _loaded(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files.get(name, b"{}"))
    return found
