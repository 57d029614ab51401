"""A search for better values of a recipe's keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from flows import search
from flywheel.recipe import Recipe


@flow(name="tune", persist_result=False)
def tune(recipe: Recipe | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Try values of the keys in `tune.space`, or go on with it. Several runs, also on several machines that share the
    directory of the store, work at one study.

    Args:
        recipe: A recipe file on the worker, or a recipe written out in this form.
        overrides: `key.path=value` changes to the file, such as `tune.n_trials=40`.
    """
    with search.open_search(recipe, list(overrides)) as opened:
        opened.go()
        return opened.report()


@flow(name="tune-worker", persist_result=False)
def tune_worker(directory: Path, run_id: str) -> None:
    """Work at a study that `tune` has opened on this machine.

    Args:
        directory: Of the study.
        run_id: Its MLflow run.
    """
    search.join(directory, run_id)


if __name__ == "__main__":
    tune_worker(Path(sys.argv[1]), sys.argv[2])
