"""The data half of the wheel: from sources to rows that met their expectations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from flows.wheel import open_wheel
from flywheel.recipe import Recipe
from tasks.ingest import ingest as read
from tasks.prepare import prepare
from tasks.validate import validate


@flow(name="ingest", persist_result=False)
def ingest(recipe: Recipe | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read, prepare and validate the data of a recipe; steps whose ingredients are unchanged show as Cached.

    Args:
        recipe: A recipe file on the worker, or a recipe written out in this form.
        overrides: `key.path=value` changes to the file, such as `data.split.heldout=0.2`.
    """
    with open_wheel(recipe, overrides, last="validate") as wheel:
        rows = wheel.turn(read)
        prepared = wheel.turn(prepare, rows=rows)
        wheel.turn(validate, rows=prepared)
        return wheel.data_report()
