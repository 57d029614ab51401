"""One turn of the wheel: the plan of a recipe, its MLflow run, and the steps as they are done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prefect import Task, runtime
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows import data, report
from flows.preflight import preflight
from flows.recipes import resolve
from flywheel import artifact, fingerprint
from flywheel.plan import PlannedStep, plan
from flywheel.progress import Progress, silent
from flywheel.recipe import Recipe
from flywheel.sources import snapshots
from infra import expectations, registry, tracking
from infra.settings import Settings
from tasks.acquire import acquire
from tasks.shell import Job, Reference


class Wheel:
    """The steps of one recipe, turned one after the other."""

    def __init__(self, recipe: Recipe, settings: Settings, planned: Sequence[PlannedStep], run: tracking.Run) -> None:
        self.recipe, self.settings, self.run = recipe, settings, run
        self.planned = {step.name: step for step in planned}
        self.done: dict[str, Reference] = {}
        self.elsewhere: dict[str, float] = {}
        """Steps that were done in a work pool, with the seconds they took there."""
        self.watch: Progress = silent
        """Is told the progress of the steps that are turned from now on, and may end one by an error."""
        self.started = time.monotonic()

    def __contains__(self, step: str) -> bool:
        return step in self.planned

    def turn(self, task: Task[..., Reference], **inputs: Any) -> Reference:
        """Do one step, or take it from the cache. A planned miss never takes an older result for its own."""
        step = self.planned[task.name]
        job = Job(self.recipe, step, self.settings, self.run.id, self.watch)
        reference: Reference = task.with_options(refresh_cache=not step.cached)(job, **inputs)
        if step.cached:
            self.run.set_tags({f"cached.{step.name}": step.fingerprint})
        reference = {**reference, "seconds": self.elsewhere.get(step.name, reference["seconds"])}
        self.done[step.name] = reference
        return reference

    def report(self) -> dict[str, Any]:
        """What happened, as `.flywheel/last-run.json` holds it; also a Markdown artifact of the flow run."""
        seconds = time.monotonic() - self.started
        ids = {"flow_run_id": str(runtime.flow_run.id), "mlflow_run_id": self.run.id}
        result = report.build(self.recipe, self.planned.values(), self.done, seconds=seconds, **ids)
        create_markdown_artifact(report.markdown(result), key="lifecycle", description=self.recipe.name)
        create_link_artifact(
            tracking.page(self.settings, self.run), "curves, pictures, data and model", key="mlflow-run"
        )
        self._show_dataset()
        report.save(self.settings.home, result)
        return result

    def data_report(self) -> dict[str, Any]:
        """Counts of rows by source; also a Markdown artifact of the flow run."""
        summaries = {name: reference["summary"] for name, reference in self.done.items()}
        result = data.report(self.recipe.name, summaries, report.steps(self.planned.values(), self.done))
        create_markdown_artifact(report.data_markdown(result), key="data", description=self.recipe.name)
        create_link_artifact(tracking.page(self.settings, self.run), "counts and Data Docs", key="mlflow-run")
        self._show_dataset()
        return result

    def _show_dataset(self) -> None:
        """The dataset card as a Markdown artifact of the flow run."""
        valid = self.planned["validate"]
        text = (artifact.location(self.settings.store, valid.name, valid.fingerprint) / "DATACARD.md").read_text()
        create_markdown_artifact(text.split("---\n", 2)[-1], key="dataset-card", description=self.recipe.name)


@contextmanager
def open_wheel(recipe: Recipe | Path, overrides: Sequence[str], last: str = "") -> Iterator[Wheel]:
    """Fetch what is remote, plan a recipe up to the step `last`, and open its MLflow run.

    A run that a kill left unfinished is continued.
    """
    settings = Settings.load()
    resolved = resolve(recipe, overrides)
    for fetched in [acquire.submit(settings, named) for named in snapshots.remote(resolved.data.sources)]:
        fetched.result()
    planned = plan(resolved, settings.store, registry.Registered(settings), last)
    if any(step.name == "validate" and not step.cached for step in planned):
        expectations.check_arguments(resolved.data.validate_.expectations)
    preflight(resolved, planned, settings)
    key = fingerprint.fingerprint({step.name: step.fingerprint for step in planned})
    written = resolved.model_dump(mode="json", by_alias=True)
    tags = {"flywheel.recipe": resolved.name, "prefect.flow_run_id": str(runtime.flow_run.id)}
    with tracking.lifecycle_run(settings, resolved.name, key, tags=tags, params=written) as run:
        run.log_text(yaml.safe_dump(written, sort_keys=False), "recipe.yaml")
        yield Wheel(resolved, settings, planned, run)
