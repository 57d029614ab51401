"""A turn of the wheel without training: real data and a real registry, and pretended weights, scores and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flywheel import artifact
from flywheel.plan import PlannedStep, plan
from flywheel.recipe import Recipe
from infra.registry import Registered
from infra.settings import Settings
from infra.tracking import lifecycle_run
from tasks.register import register
from tasks.shell import Job
from tests import stores

PRECISION = {
    "precision": "fp32",
    "accepted": True,
    "reason": "equal",
    "max_logit_error": 1e-5,
    "tokens_equal": 128,
    "tokens_compared": 128,
    "speedup": 1.5,
    "quality_change": 0.0,
    "bytes": 1000,
    "milliseconds_per_step": 1.0,
}


@dataclass
class Turns:
    """A home in which recipes are turned, one after the other."""

    settings: Settings
    root: Path
    source: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.source = stores.write(self.root / "notes", stores.NOTES)

    def recipe(self, steps: int, approval: bool = False) -> Recipe:
        """Recipes with other numbers of steps train other weights."""
        made = stores.recipe(self.source)
        train = made.train.model_copy(update={"max_steps": steps})
        return made.model_copy(
            update={"train": train, "promote": made.promote.model_copy(update={"approval": approval})}
        )

    def plan(self, recipe: Recipe) -> dict[str, PlannedStep]:
        found = plan(recipe, self.settings.store, Registered(self.settings))
        return {step.name: step for step in found}

    def turn(self, steps: int, *, bits: float = 1.5, admitted: bool = True, approval: bool = False) -> dict[str, Any]:
        """Register the weights of so many steps, which the gate has admitted or not; the summary of `register`."""
        recipe = self.recipe(steps, approval)
        stores.run(self.settings.store, recipe)
        planned, history = self.plan(recipe), {}
        for name, step in planned.items():
            if name == "register":
                break
            history[name] = self._done(step, bits, admitted)
            if name == "gate":
                rival = planned["champion"].ingredients["registry:champion"]
                history[name]["summary"]["champion"] = int(rival.partition(" ")[0] or 0)
        with lifecycle_run(self.settings, recipe.name, f"{steps:010}", tags={}, params={}) as run:
            done = register.fn(Job(recipe, planned["register"], self.settings, run.id), history)
        self._done(self.plan(recipe)["deploy"], bits, admitted)
        summary: dict[str, Any] = done["summary"]
        return summary

    def misses(self, steps: int, approval: bool = False) -> dict[str, str]:
        """Steps that a run would do again, and why."""
        return {n: s.reason for n, s in self.plan(self.recipe(steps, approval)).items() if not s.cached}

    def _done(self, step: PlannedStep, bits: float, admitted: bool) -> dict[str, Any]:
        """The reference of a step, which is made where it is not there."""
        store = self.settings.store
        place = artifact.location(store, step.name, step.fingerprint)
        found = artifact.intact(place)
        if found is None:
            with artifact.locked(store, step.name, step.fingerprint) as building:
                for name in ("model/model.safetensors", "model/tokenizer.json", "manifest.json", "fp32/model.onnx"):
                    (building.out / name).parent.mkdir(exist_ok=True)
                    (building.out / name).write_text(f"{step.name} {step.fingerprint}")
                found = artifact.commit(
                    building,
                    target=place,
                    recipe="tiny",
                    ingredients=step.ingredients,
                    summary=_summary(step, bits, admitted),
                )
        return {"step": step.name, "fingerprint": step.fingerprint, "seconds": 0.0, "summary": dict(found.summary)}


def _summary(step: PlannedStep, bits: float, admitted: bool) -> dict[str, Any]:
    metric = {"value": bits, "low": bits - 0.1, "high": bits + 0.1, "better": "lower", "unit": "bits/byte"}
    metrics = {"bits_per_byte": {**metric, "baseline": None, "before": 8.0, "detail": {}}}
    if step.name == "gate":
        reason = {"metric": "bits_per_byte", "holds": admitted, "text": f"bits_per_byte is {bits}"}
        return {"promote": admitted, "reasons": [reason], "champion": 0, "comparisons": []}
    return {
        "train": {"steps": 5, "parameters": 10, "loss": 1.0, "seconds": 1.0},
        "evaluate": {"metrics": metrics},
        "champion": {"version": 0, "metrics": {}, "fault": ""},
        "export": {"default": "fp32", "precisions": [PRECISION]},
    }.get(step.name, {})
