"""The trials of a search: each is a turn of the wheel up to the evaluation, in an MLflow run of its own."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from prefect import tags
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.settings import PREFECT_API_URL

from flows import elsewhere, study
from flows.recipes import resolve
from flows.wheel import Wheel
from flywheel import artifact, pictures, tuning
from flywheel.errors import ArtifactError, TrainingError
from flywheel.plan import plan
from flywheel.progress import Progress, silent
from flywheel.recipe import Recipe
from flywheel.recipe_train import Train
from flywheel.sources import snapshots
from flywheel.study import Claim, Study
from flywheel.tuning import Pruned
from infra import expectations, registry, tracking
from infra.errors import InfraError
from infra.leash import Leashed
from infra.settings import Settings
from tasks.acquire import acquire
from tasks.evaluate import evaluate
from tasks.finetune import finetune
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.train import train
from tasks.validate import validate

FRUITLESS = 3
"""So many trials may fail before one succeeds; then the recipe is wrong, not the values."""
RECIPE = "recipe.yaml"


class Search:
    """Works at the trials of a study, beside others that may do the same."""

    def __init__(self, found: Study, settings: Settings, run: tracking.Run) -> None:
        self.study, self.settings, self.run = found, settings, run
        self.started = time.monotonic()

    def go(self) -> None:
        """Work until all trials have ended, with as many helpers as the recipe wants workers."""
        with self._helpers() as helpers:
            self.work()
            for helper in helpers:
                helper.process.wait()
        self.work()  # at what a helper that died has left

    def work(self) -> None:
        """Try until no more trials are wanted, or the time is up; what a dead process left comes first."""
        while not self._late() and (trial := self.study.claim()) is not None:
            try:
                self._try(trial)
            finally:
                trial.leave()

    def _late(self) -> bool:
        limit = self.study.tune.timeout
        return limit is not None and time.monotonic() - self.started > limit

    def _try(self, trial: Claim) -> None:
        """One trial, from its values to its end."""
        began, name = time.monotonic(), f"trial {trial.number}"
        _tell(f"{name}: {' '.join(tuning.overrides(trial.params))}")
        named = {tracking.PARENT: self.run.id, "flywheel.trial": str(trial.number)}
        params = {key.replace("[", ".").replace("]", ""): value for key, value in trial.params.items()}
        key = f"{self.study.directory.name}-{trial.number}"
        with tracking.lifecycle_run(self.settings, self.study.recipe.name, key, tags=named, params=params) as run:
            run.set_tags({tracking.NAME: name.replace(" ", "-")})
            try:
                with tags(name):
                    facts = self._measured(trial, run)
            except Exception as error:
                if _ends_the_search(error):
                    raise
                end = trial.prune if isinstance(error, Pruned) else trial.fail
                end(_reason(error), seconds=round(time.monotonic() - began, 1))
            else:
                trial.finish(**facts, seconds=round(time.monotonic() - began, 1))
            outcome = self.study.outcome(trial.number)
            run.set_tags({"flywheel.state": outcome.state, "flywheel.reason": outcome.reason})
        _tell(f"{name}: {outcome.state}, {outcome.reason or f'{self.metric} {outcome.value:.4g}'}")
        self._refuse_fruitless()

    @property
    def metric(self) -> str:
        """What is made better."""
        return self.study.tune.metric or self.study.recipe.objective.metric

    def _measured(self, trial: Claim, run: tracking.Run) -> dict[str, Any]:
        """What is to be remembered of a trial. Raises Pruned where it falls behind."""
        wheel = self._wheel(trial, run)
        try:
            self._turn(wheel, trial)
        except Pruned:
            self._clear(wheel)
            raise
        metrics = wheel.done["evaluate"]["summary"]["metrics"]
        if self.metric not in metrics:
            raise TrainingError(f"metric {self.metric}", found=f"only {', '.join(metrics)} of this recipe")
        run.log_metrics({name: m["value"] for name, m in metrics.items()})
        valid = wheel.planned["validate"]
        files = artifact.load(artifact.location(self.settings.store, valid.name, valid.fingerprint)).files
        return {
            "value": metrics[self.metric]["value"],
            "better": metrics[self.metric]["better"],
            "metrics": {name: m["value"] for name, m in metrics.items()},
            "heldout": " ".join(digest[:16] for name, digest in sorted(files.items()) if "heldout" in name),
        }

    def _wheel(self, trial: Claim, run: tracking.Run) -> Wheel:
        """The plan of one trial. Sources that only this trial reads are fetched; all others were before the search."""
        recipe = study.trial_recipe(self.study.recipe, trial.params)
        known = snapshots.remote(self.study.recipe.data.sources)
        for named in snapshots.remote(recipe.data.sources):
            if named not in known:
                acquire(self.settings, named)
        planned = plan(recipe, self.settings.store, registry.Registered(self.settings), last="evaluate")
        expectations.check_arguments(recipe.data.validate_.expectations)
        run.log_text(yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False), RECIPE)
        return Wheel(recipe, self.settings, planned, run)

    def _turn(self, wheel: Wheel, trial: Claim) -> None:
        """The steps of a lifecycle up to the evaluation."""
        second = wheel.recipe.finetune
        rows = wheel.turn(ingest)
        prepared = wheel.turn(prepare, rows=rows)
        valid = wheel.turn(validate, rows=prepared)
        elsewhere.train(wheel, rows=valid)
        wheel.watch = _watch(trial, wheel.recipe.train, 0, last=second is None)
        base = weights = wheel.turn(train, rows=valid)
        if second is not None:
            wheel.watch = _watch(trial, second, base["summary"]["steps"], last=True)
            weights = wheel.turn(finetune, start=base, rows=valid)
        wheel.watch = silent
        wheel.turn(evaluate, rows=valid, base=base, weights=weights)

    def _clear(self, wheel: Wheel) -> None:
        """Remove the checkpoints of a training that nobody will go on with."""
        for name in ("train", "finetune"):
            if name in wheel and name not in wheel.done:
                step = wheel.planned[name]
                with artifact.locked(self.settings.store, step.name, step.fingerprint) as building:
                    shutil.rmtree(building.work, ignore_errors=True)

    def _refuse_fruitless(self) -> None:
        ended = [o for o in self.study.outcomes() if o.state != "running"]
        if len(ended) >= FRUITLESS and all(o.state == "failed" for o in ended):
            study.refuse_failed(self.study, ended)

    @contextmanager
    def _helpers(self) -> Iterator[list[Leashed]]:
        """Further processes that work at the study; they end with this one."""
        left = self.study.tune.n_trials - sum(o.state != "running" for o in self.study.outcomes())
        number = min(self.study.tune.workers, left)
        if number < 2:
            yield []
            return
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // number)))
        environment = {**os.environ, **self.settings.environment(), "PREFECT_API_URL": PREFECT_API_URL.value() or ""}
        study.write(self.study.directory / RECIPE, yaml.safe_dump(_plain(self.study.recipe), sort_keys=False))
        command = [sys.executable, "-m", "flows.tune", str(self.study.directory), self.run.id]
        with ExitStack() as stack:
            helpers = []
            for n in range(2, number + 1):
                log = self.settings.home / "logs" / f"tune-{self.study.directory.name}-{n}.log"
                _tell(f"worker {n}: see {log}")
                helpers.append(Leashed(command, environment, log))
                stack.callback(helpers[-1].stop)
            yield helpers

    def report(self) -> dict[str, Any]:
        """What the trials say, in MLflow, in Prefect's UI and on the disk."""
        told = study.report(self.study, time.monotonic() - self.started)
        best, ended = told["best"], [t for t in told["trials"] if t["state"] != "running"]
        if best is not None:
            self.run.log_metrics({self.metric: best["value"]}, step=len(ended))
            self.run.log_text(Path(told["best_recipe"]).read_text(), study.BEST)
            drawn = pictures.search_history(ended, self.metric, best["better"])
            self._picture(drawn, "history.png")
            self.run.set_tags({"flywheel.best_trial": str(best["number"])})
        if told["importance"]:
            self._picture(pictures.importance(told["importance"], self.metric), "importance.png")
        create_markdown_artifact(study.markdown(told), key="search", description=self.study.recipe.name)
        create_link_artifact(tracking.page(self.settings, self.run), "trials, curves and pictures", key="mlflow-run")
        study.save(self.study, told)
        return told

    def _picture(self, png: bytes, name: str) -> None:
        (self.study.directory / name).write_bytes(png)
        self.run.log_picture(png, name)


@contextmanager
def open_search(recipe: Recipe | Path, overrides: list[str]) -> Iterator[Search]:
    """Fetch what is remote, and open the study of a recipe and its MLflow run; both go on where they were left."""
    settings = Settings.load()
    resolved = resolve(recipe, overrides)
    for fetched in [acquire.submit(settings, named) for named in snapshots.remote(resolved.data.sources)]:
        fetched.result()
    found = study.open_study(resolved, settings)
    if reason := tuning.unprunable(resolved, found.tune):
        _tell(f"trials are not pruned: {reason}")
    params = found.tune.model_dump(mode="json", exclude={"n_trials", "workers", "timeout"})
    opened = tracking.study_run(settings, resolved.name, found.directory.name, params=params)
    with ExitStack() as stack:
        with found.locked():  # two that begin at the same moment share one run
            run = stack.enter_context(opened)
        yield Search(found, settings, run)


def join(directory: Path, run_id: str) -> None:
    """Work at a study that another process has opened."""
    settings = Settings.load()
    found = Study(directory, resolve(directory / RECIPE))
    Search(found, settings, tracking.known_run(settings, run_id)).work()


def _watch(trial: Claim, stage: Train, before: int, *, last: bool) -> Progress:
    """Tells the study the losses of a stage, but not at its very end: there is nothing left to be saved."""
    figure = "loss" if stage.eval_steps is None else "eval_loss"

    def listen(done: int, total: int, figures: Mapping[str, float]) -> None:
        if figure in figures and not (last and done >= total):
            trial.report(before + done, figures[figure])

    return listen


def _ends_the_search(error: Exception) -> bool:
    """Whether an error says nothing about the values of its trial: a full disk, a server that is away."""
    return isinstance(error, ArtifactError) or (isinstance(error, InfraError) and type(error) is not InfraError)


def _reason(error: Exception) -> str:
    """In one line."""
    if isinstance(error, Pruned):
        return error.found
    return " ".join(f"{'' if hasattr(error, 'thing') else f'{type(error).__name__}: '}{error}".split())


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", by_alias=True)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
