"""The plan: for every step of a recipe, hit or miss, and why. `flywheel plan` prints it; a run follows it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flywheel import arguments, artifact, fingerprint
from flywheel.errors import ArtifactError
from flywheel.features.table import KINDS
from flywheel.methods import rewards
from flywheel.methods import table as methods
from flywheel.metrics.table import METRICS
from flywheel.modalities.rooms import ROOMS
from flywheel.process import check
from flywheel.recipe import Recipe, section
from flywheel.recipe_base import Operation
from flywheel.recipe_train import Distill, Grpo, Train
from flywheel.sources import base as sources
from flywheel.sources import snapshots, tombstones
from flywheel.steps import Step, wheel

SHOWN = 120
"""Characters of a value that the reason of a miss shows."""


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

    def rival(self, name: str, weights: str) -> str:
        """The version that weights with this fingerprint challenge, or challenged when they became the champion: its
        number, a space, and what its files are known by. Empty where there is none."""


def plan(recipe: Recipe, store: Path, registry: Registry, last: str = "") -> list[PlannedStep]:
    """Hit or miss for every step, or for those up to `last`.

    A hit means that an artifact with this fingerprint stands in the store, that every byte of it is as it was written,
    and that the registry still holds what was registered. Raises SourceError where a source cannot be read.
    """
    planned: dict[str, PlannedStep] = {}
    for step in wheel(recipe):
        ingredients = own_ingredients(recipe, step, store, registry.uri)
        ingredients |= {f"parent:{p}": planned[p].fingerprint for p in step.parents}
        if "champion" in step.inputs:
            ingredients["registry:champion"] = registry.rival(recipe.name, planned[step.parents[-1]].fingerprint)
        mark = fingerprint.fingerprint(ingredients)
        reason = _why(recipe, store, step.name, mark, ingredients)
        again = "" if reason else _outdated(step, [planned[p] for p in step.parents], store, mark, registry)
        planned[step.name] = PlannedStep(
            step.name, mark, not (reason or again), reason or again, ingredients, redo=bool(again)
        )
        if step.name == last:
            break
    return list(planned.values())


def _outdated(step: Step, parents: Sequence[PlannedStep], store: Path, mark: str, registry: Registry) -> str:
    """Why an intact artifact must be made again all the same, or nothing."""
    if again := [p.name for p in parents if p.redo]:
        return f"{again[0]} is made again"
    if "registry" not in step.inputs:
        return ""
    return registry.fault(artifact.load(artifact.location(store, step.name, mark)).summary)


def own_ingredients(recipe: Recipe, step: Step, store: Path, registry: str) -> dict[str, str]:
    """Everything that a step is made from but its parents, as it is now."""
    entry = ROOMS[recipe.model.modality]
    by_name = {
        "{room}": (entry.module,),
        "{runtime}": (entry.runtime,),
        "{sources}": tuple(sources.READERS[s.type] for s in recipe.data.sources),
        "{features}": () if recipe.features is None else (KINDS[recipe.features.type],),
        "{operations}": check.modules(_operations(recipe)),
        "{method}": methods.modules(stage) if (stage := _stage(recipe, step.name)) is not None else (),
        "{metrics}": tuple(METRICS[arguments.named(m)[0]].module for m in recipe.evaluate.metrics),
    }
    modules = [name for m in step.modules for name in by_name.get(m, (m,))]
    found = fingerprint.of_source(f"tasks.{step.name}", modules)
    for key in step.keys:
        found |= fingerprint.of_values(section(recipe, key), f"recipe:{key}")
    for name in step.inputs:
        if name in _FILES:
            found |= fingerprint.of_files(_FILES[name](recipe, step, store))
    if "registry" in step.inputs:
        found["registry"] = registry
    return found


def _stage(recipe: Recipe, step: str) -> Train | None:
    """The section of a training stage."""
    return {"train": recipe.train, "finetune": recipe.finetune}.get(step)


def _source_files(recipe: Recipe, _: Step, store: Path) -> dict[str, str]:
    found = sources.inputs(recipe.data.sources, snapshots.roots(store, recipe.data.sources))
    tombs = store / tombstones.FILE
    return {**found, tombstones.FILE: artifact.sha256(tombs)} if tombs.exists() else dict(found)


def _checkpoint_files(recipe: Recipe, *_: object) -> dict[str, str]:
    return _tree(Path(recipe.model.path)) if recipe.model.path and Path(recipe.model.path).is_dir() else {}


def _stage_files(recipe: Recipe, step: Step, _: Path) -> dict[str, str]:
    """What a training stage reads beside rows and weights: rewards, a teacher, an adapter to start from."""
    stage = _stage(recipe, step.name)
    named = [stage.teacher] if isinstance(stage, Distill) else []
    if "peft" in step.keys and recipe.peft is not None and recipe.peft.path is not None:
        named.append(recipe.peft.path)
    found = {str(p): artifact.sha256(p) for p in rewards.files(stage.reward_funcs)} if isinstance(stage, Grpo) else {}
    for directory in (Path(name) for name in named if Path(name).is_dir()):
        found |= _tree(directory)
    return found


def _operations(recipe: Recipe) -> list[Operation]:
    """Every operation that preparing runs."""
    second = recipe.finetune.process if recipe.finetune is not None else ()
    return [*recipe.data.process, *recipe.data.augment, *second]


def _tree(path: Path) -> dict[str, str]:
    """Name → sha256 of every file of a directory."""
    return {str(p): artifact.sha256(p) for p in sorted(path.rglob("*")) if p.is_file()}


def _named_files(operations: Iterable[Operation]) -> dict[str, str]:
    return {str(path): artifact.sha256(path) for path in arguments.files(operations)}


_FILES: dict[str, Callable[[Recipe, Step, Path], dict[str, str]]] = {
    "sources": _source_files,
    "operands": lambda recipe, *_: _named_files(_operations(recipe)),
    "operands of metrics": lambda recipe, *_: _named_files(recipe.evaluate.metrics),
    "checkpoint": _checkpoint_files,
    "stage": _stage_files,
}
"""What a step reads from outside → name and sha256 of each file."""


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
    words = changes(old, new)
    if len(words) > most:
        words[most:] = [f"and {len(words) - most} more"]
    return ", ".join(words)


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Everything that differs between two sets of ingredients, in words and in that order."""
    order = {"recipe": 0, "file": 1, "module": 2, "package": 3, "registry": 4, "parent": 5}
    changed = [n for n in {**old, **new} if old.get(n) != new.get(n)]
    changed.sort(key=lambda n: (order[n.partition(":")[0]], n))
    return [words for name in changed for words in _difference(name, old.get(name), new.get(name))]


def _difference(name: str, old: str | None, new: str | None) -> Iterator[str]:
    kind, _, what = name.partition(":")
    if kind == "parent":
        yield f"{what} changed"
    elif kind == "recipe" and old is not None and new is not None:
        yield from (f"recipe {change}" for change in _changes(what, json.loads(old), json.loads(new)))
    elif kind in ("recipe", "package"):
        yield f"{kind} {what}: {old or 'absent'} → {new or 'absent'}"
    else:
        verb = "added" if old is None else "removed" if new is None else "changed"
        yield f"{kind} {what} {verb}".replace("  ", " ")


def _changes(key: str, old: Any, new: Any) -> Iterator[str]:
    """What differs between two values of a key, down to the items of lists."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() & new.keys():
        for name in (name for name in {**old, **new} if old.get(name) != new.get(name)):
            yield from _changes(f"{key}.{name}", old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list):
        before, after = ([json.dumps(item, sort_keys=True) for item in items] for items in (old, new))
        for verb, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if verb != "equal":
                both = min(j - i, m - k)
                for place in range(both):
                    yield from _changes(f"{key}[{k + place}]", old[i + place], new[k + place])
                yield from (f"{key}: {_short(item)} removed" for item in old[i + both : j])
                yield from (f"{key}: {_short(item)} added" for item in new[k + both : m])
    else:
        yield f"{key}: {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps({k: v for k, v in value.items() if v} if isinstance(value, dict) else value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
