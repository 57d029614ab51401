"""The plan: for every step of a recipe, hit or miss, and why. `flywheel plan` prints it; a run follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flywheel import artifact, fingerprint
from flywheel.errors import ArtifactError
from flywheel.modalities.rooms import ROOMS
from flywheel.recipe import Recipe, section
from flywheel.sources import base as sources
from flywheel.steps import Step, wheel


@dataclass(frozen=True)
class PlannedStep:
    """One line of the plan."""

    name: str
    fingerprint: str
    cached: bool
    reason: str
    """Why it misses, in words; empty for a hit."""
    ingredients: Mapping[str, str]
    redo: bool = False
    """Its artifact is intact, and yet it must be made again: the registry does not hold what it says."""


class Registry(Protocol):
    """Where versions are registered."""

    @property
    def uri(self) -> str:
        """What identifies it."""

    def fault(self, registered: Mapping[str, Any]) -> str:
        """Why what the step `register` returned is not so any more; empty while it is."""


def plan(recipe: Recipe, store: Path, registry: Registry) -> list[PlannedStep]:
    """Hit or miss for every step.

    A hit means that an artifact with this fingerprint stands in the store, that every byte of it is as it was written,
    and that the registry still holds what was registered. Raises SourceError where a source cannot be read.
    """
    planned: dict[str, PlannedStep] = {}
    for step in wheel(recipe):
        ingredients = own_ingredients(recipe, step, registry.uri)
        ingredients |= {f"parent:{p}": planned[p].fingerprint for p in step.parents}
        mark = fingerprint.fingerprint(ingredients)
        reason = _why(recipe, store, step.name, mark, ingredients)
        again = "" if reason else _outdated(step, [planned[p] for p in step.parents], store, mark, registry)
        planned[step.name] = PlannedStep(
            step.name, mark, not (reason or again), reason or again, ingredients, redo=bool(again)
        )
    return list(planned.values())


def _outdated(step: Step, parents: Sequence[PlannedStep], store: Path, mark: str, registry: Registry) -> str:
    """Why an intact artifact must be made again all the same, or nothing."""
    if again := [p.name for p in parents if p.redo]:
        return f"{again[0]} is made again"
    if "registry" not in step.inputs:
        return ""
    return registry.fault(artifact.load(artifact.location(store, step.name, mark)).summary)


def own_ingredients(recipe: Recipe, step: Step, registry: str) -> dict[str, str]:
    """Everything that a step is made from but its parents, as it is now."""
    entry = ROOMS[recipe.model.modality]
    by_name = {
        "{room}": (entry.module,),
        "{runtime}": (entry.runtime,),
        "{sources}": tuple(sources.READERS[s.type] for s in recipe.data.sources),
    }
    modules = [name for m in step.modules for name in by_name.get(m, (m,))]
    found = fingerprint.of_source(f"tasks.{step.name}", modules)
    for key in step.keys:
        found |= fingerprint.of_values(section(recipe, key), f"recipe:{key}")
    if "sources" in step.inputs:
        found |= fingerprint.of_files(sources.inputs(recipe.data.sources))
    if "checkpoint" in step.inputs and recipe.model.path and Path(recipe.model.path).is_dir():
        root = Path(recipe.model.path)
        found |= fingerprint.of_files({str(p): artifact.sha256(p) for p in sorted(root.rglob("*")) if p.is_file()})
    if "registry" in step.inputs:
        found["registry"] = registry
    return found


def _why(recipe: Recipe, store: Path, step: str, mark: str, ingredients: Mapping[str, str]) -> str:
    """Empty for a hit, else the cause of the miss."""
    place = artifact.location(store, step, mark)
    if place.exists():
        try:
            hurt = artifact.damage(artifact.load(place))
        except ArtifactError as error:
            hurt = error.found
        return f"damaged: {hurt}" if hurt else ""
    earlier = [a for a in artifact.existing(store, step) if a.recipe == recipe.name]
    if not earlier:
        return "never built"
    return differences(earlier[0].ingredients, ingredients)


def differences(old: Mapping[str, str], new: Mapping[str, str], most: int = 4) -> str:
    """What differs between two sets of ingredients, in words; the causes nearest to the user come first."""
    order = {"recipe": 0, "file": 1, "module": 2, "package": 3, "registry": 4, "parent": 5}
    changed = [n for n in {**old, **new} if old.get(n) != new.get(n)]
    changed.sort(key=lambda n: (order[n.partition(":")[0]], n))
    words = [_difference(name, old.get(name), new.get(name)) for name in changed[:most]]
    if len(changed) > most:
        words.append(f"and {len(changed) - most} more")
    return ", ".join(words)


def _difference(name: str, old: str | None, new: str | None) -> str:
    kind, _, what = name.partition(":")
    if kind == "parent":
        return f"{what} changed"
    if kind in ("recipe", "package"):
        return f"{kind} {what}: {old or 'absent'} → {new or 'absent'}"
    verb = "added" if old is None else "removed" if new is None else "changed"
    return f"{kind} {what} {verb}".replace("  ", " ")
