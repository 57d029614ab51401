"""What `flywheel reproduce` does: from a registered version back to the same weights, or a list of what differs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from flows import local
from flywheel import artifact, hardware, plan
from flywheel.artifact import Artifact
from flywheel.errors import ArtifactError, FlywheelError
from flywheel.recipe import Recipe
from flywheel.scratch import scratch
from flywheel.sources import tombstones
from flywheel.steps import Step, wheel
from infra import registry, tracking
from infra.registry import Version
from infra.settings import Settings

LINEAGE, WEIGHTS = "lineage.", "model/"
"""Of a version's tags, and of the files that are compared."""
CHOICE, CHOSEN = "choice", "auto.json"
"""What `train.auto` chose, in the summary of a stage and in its `work`."""
DATA, STAGES = ("ingest", "prepare", "validate"), ("train", "finetune")


@dataclass(frozen=True)
class Closure:
    """Everything that made the weights of a version."""

    version: Version
    recipe: Recipe
    steps: tuple[Step, ...]
    made: Mapping[str, Artifact]
    """By step, as far as the store still has them."""


def reproduce(reference: str, *, anyway: bool = False) -> dict[str, Any]:
    """Make the weights of a version again from its sources, in a store of its own that is removed afterwards.

    Nothing is tried where an ingredient or the class of hardware is not as it was, unless `anyway`. Returns `identical`
    (None where it was not tried), `differences` in words, and the sha256 of each file `then` and `now`.
    """
    started, settings = time.monotonic(), Settings.load()
    version = registry.resolve(settings, reference)
    told: dict[str, Any] = {"model": version.name, "version": version.version, "aliases": list(version.aliases)}
    told |= {"identical": None, "files": [], "first": "", "seconds": 0.0}
    found, differences = _closure(settings, version)
    if found is None:
        return {**told, "differences": differences}
    told["lineage"] = {name: a.fingerprint for name, a in found.made.items()}
    differences += _differences(settings, found)
    if found.steps[-1].name in found.made and (anyway or not differences):
        told |= _tried(settings, found)
        differences += [d for d in told.pop("later") if d not in differences]
    return {**told, "differences": differences, "seconds": time.monotonic() - started}


def _closure(settings: Settings, version: Version) -> tuple[Closure | None, list[str]]:
    """What made a version, and what of it is gone."""
    written = tracking.text(settings, version.run_id or "", "recipe.yaml")
    try:
        recipe = Recipe.model_validate(yaml.safe_load(written))
    except ValueError as error:
        return None, [f"recipe: this version of flywheel does not take it: {str(error).splitlines()[0]}"]
    steps = tuple(s for s in wheel(recipe) if s.name in (*DATA, *STAGES))
    made, gone = {}, []
    for step in steps:
        mark = version.tags.get(f"{LINEAGE}{step.name}", "")
        try:
            made[step.name] = artifact.load(artifact.location(settings.store, step.name, mark or "-"))
        except ArtifactError:
            gone.append(f"artifact of {step.name} is not in {settings.store}")
    return Closure(version, recipe, steps, made), gone


def _differences(settings: Settings, found: Closure) -> list[str]:
    """Each ingredient that is not what it was: sources, modules, packages, values of the recipe, and the hardware."""
    told: dict[str, None] = {}
    for step in (s for s in found.steps if s.name in found.made):
        made = found.made[step.name]
        then = {name: value for name, value in made.ingredients.items() if not name.startswith("parent:")}
        try:
            now = plan.own_ingredients(found.recipe, step, settings.store, settings.tracking_uri)
        except FlywheelError as error:
            told[f"{step.name}: {error.thing}: {error.found}"] = None
        else:
            told |= dict.fromkeys(plan.changes(then, now))
        if step.name in STAGES:
            told |= dict.fromkeys(hardware.changes(made.summary.get("hardware", {}), hardware.hardware()))
    return list(told)


def _tried(settings: Settings, found: Closure) -> dict[str, Any]:
    """Run the steps again and compare."""
    local.prepare_environment(hub=local.names_hub(found.recipe))
    with _apart(settings, found) as home, local.server(settings) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.rebuild import rebuild

        marks = rebuild(found.recipe, home, tuple(s.name for s in found.steps))
        store = at(settings, home).store
        again = {name: artifact.load(artifact.location(store, name, mark)) for name, mark in marks.items()}
    return _compared(found, again)


def _compared(found: Closure, again: Mapping[str, Artifact]) -> dict[str, Any]:
    last = found.steps[-1].name
    files = _files(found.made[last], again[last], WEIGHTS)
    unlike = [
        name
        for name, made in found.made.items()
        if any(f["then"] != f["now"] for f in _files(made, again[name], WEIGHTS if name in STAGES else "", ".parquet"))
    ]
    before, after = (a[last].summary.get("hardware", {}) for a in (found.made, again))
    return {
        "identical": all(f["then"] == f["now"] for f in files),
        "files": files,
        "first": unlike[0] if unlike else "",
        "later": [f"hardware {k}: {before[k]} → {after.get(k)}" for k in before if before[k] != after.get(k)],
    }


def _files(then: Artifact, now: Artifact, start: str, end: str = "") -> list[dict[str, str | None]]:
    """Name and digests of the files below `start`; elsewhere of those that end in `end`."""
    names = sorted({*then.files, *now.files})
    chosen = [n for n in names if n.startswith(start) and (start or n.endswith(end))]
    return [{"file": n, "then": then.files.get(n), "now": now.files.get(n)} for n in chosen]


def at(settings: Settings, home: Path) -> Settings:
    """These settings with a store and a tracking database in `home`."""
    database, logged = f"sqlite:///{home / 'mlflow.db'}", str(home / "mlartifacts")
    return replace(settings, home=home, tracking_uri=database, artifact_root=logged)


@contextmanager
def _apart(settings: Settings, found: Closure) -> Iterator[Path]:
    """A home with nothing in it but what stands for the sources: snapshots of remote ones, tombstones, and what
    `train.auto` had chosen."""
    with scratch(settings.home, ".reproducing-") as home:
        store = at(settings, home).store
        store.mkdir()
        for name in (".snapshots", tombstones.FILE):
            if (place := settings.store / name).exists():
                (store / name).symlink_to(place)
        (settings.home / "leases").mkdir(exist_ok=True)
        (home / "leases").symlink_to(settings.home / "leases")  # devices are the machine's
        for name in STAGES:
            made = found.made.get(name)
            if made is not None and made.summary.get(CHOICE):
                work = store / name / f".{made.fingerprint}.work"
                work.mkdir(parents=True)
                (work / CHOSEN).write_text(json.dumps(made.summary[CHOICE]))
        yield home
