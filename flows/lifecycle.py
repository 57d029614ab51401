"""The whole wheel: from raw files to a registered, served ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from flows import elsewhere
from flows.wheel import open_wheel
from flywheel.recipe import Recipe
from tasks.champion import champion
from tasks.deploy import deploy
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.features import features
from tasks.finetune import finetune
from tasks.gate import gate
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.register import register
from tasks.train import train
from tasks.validate import validate


@flow(name="lifecycle", persist_result=False)
def lifecycle(recipe: Recipe | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Drive a recipe from its sources to a served model; steps whose ingredients are unchanged show as Cached.

    Args:
        recipe: A recipe file on the worker, or a recipe written out in this form.
        overrides: `key.path=value` changes to the file, such as `train.max_steps=10`.
    """
    with open_wheel(recipe, overrides) as wheel:
        rows = wheel.turn(ingest)
        prepared = wheel.turn(prepare, rows=rows)
        valid = wheel.turn(validate, rows=prepared)
        if "features" in wheel:
            wheel.turn(features, rows=valid)
        elsewhere.train(wheel, rows=valid)  # in the work pool, if the recipe names one; then these two hit the store
        base = wheel.turn(train, rows=valid)
        weights = wheel.turn(finetune, start=base, rows=valid) if "finetune" in wheel else base
        scores = wheel.turn(evaluate, rows=valid, base=base, weights=weights)
        rival = wheel.turn(champion, rows=valid, weights=weights)
        exported = wheel.turn(export, weights=weights, rows=valid)
        wheel.turn(gate, measured={"evaluate": scores, "champion": rival, "export": exported, "validate": valid})
        version = wheel.turn(register, history=wheel.done)
        wheel.turn(deploy, version=version)
        return wheel.report()
