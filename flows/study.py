"""What `flywheel tune` does around the flow: find the study of a recipe, and tell what it found."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from flows import local
from flows.recipes import resolve
from flywheel import fingerprint, tuning
from flywheel.errors import TrainingError
from flywheel.plan import plan
from flywheel.recipe import Recipe
from flywheel.sources import snapshots
from flywheel.study import Study, wanted
from flywheel.tuning import Outcome
from infra import registry
from infra.settings import Settings

REPORT, BEST = "report.json", "best.yaml"
_ALIKE = ("n_trials", "workers", "timeout")
"""Keys of `tune` that change how far a study goes, and not what its trials say."""


def run(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Search, or go on with a search, and return its report. Where it is complete there is nothing to do."""
    started, settings = time.monotonic(), Settings.load()
    recipe = resolve(path, overrides)
    local.prepare_environment(hub=_names_hub(recipe))
    if not snapshots.remote(recipe.data.sources):
        study = open_study(recipe, settings)
        if (told := _told(study)) is not None:
            sys.stderr.write(f"{recipe.name}: the search is complete, nothing to do\n")
            return {**told, "seconds": time.monotonic() - started}
    with local.server(settings) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.tune import tune

        return tune(recipe)


def open_study(recipe: Recipe, settings: Settings) -> Study:
    """The study of a recipe, by the fingerprint of the recipe's evaluation and of its space.

    So another source, recipe or version of the code is another study; more trials, or more workers, are the same one.
    Raises RecipeError for a recipe without `tune`.
    """
    searched = {k: v for k, v in wanted(recipe).model_dump(mode="json").items() if k not in _ALIKE}
    measured = plan(trial_recipe(recipe), settings.store, registry.Registered(settings), last="evaluate")[-1]
    mark = fingerprint.fingerprint(
        {"evaluate": measured.fingerprint, "tune": json.dumps(searched), "metric": recipe.objective.metric}
    )
    return Study(settings.home / "studies" / f"{recipe.name}-{mark}", recipe)


def trial_recipe(recipe: Recipe, params: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of one trial. Raises RecipeError where its values do not go together."""
    return resolve(recipe, ["tune=null", *tuning.overrides(params or {})])


def report(study: Study, seconds: float) -> dict[str, Any]:
    """All trials and what they say; `best_recipe` is written for `flywheel run`.

    Raises TrainingError where all trials failed.
    """
    outcomes = study.outcomes()
    best = tuning.best(outcomes)
    ended = [o for o in outcomes if o.state != "running"]
    if best is None and ended:
        refuse_failed(study, ended)
    told = None
    if best is not None:
        told = str(study.directory / BEST)
        write(Path(told), _as_file(trial_recipe(study.recipe, best.params), best))
    measured_on = {o.heldout for o in outcomes if o.state == "finished"}
    return {
        "recipe": study.recipe.name,
        "study": study.directory.name,
        "directory": str(study.directory),
        "metric": study.tune.metric or study.recipe.objective.metric,
        "better": best.better if best else None,
        "trials": [o.as_dict() for o in outcomes],
        "best": best.as_dict() if best else None,
        "best_recipe": told,
        "importance": study.importance(),
        "pruning": tuning.unprunable(study.recipe, study.tune) or study.tune.pruner,
        "same_heldout_rows": len(measured_on) <= 1,
        "seconds": seconds,
    }


def refuse_failed(study: Study, failed: Sequence[Outcome]) -> NoReturn:
    """Raise TrainingError with the reason of the last of the trials that failed."""
    raise TrainingError(
        f"the search of {study.recipe.name}",
        found=f"no trial of {len(failed)} came to its end; the last: {failed[-1].reason}",
        expected="one at least",
        remedy=f"correct the recipe or its `tune.space`; where neither was wrong, remove {study.directory}",
    )


def markdown(told: Mapping[str, Any]) -> str:
    """The trials, best first, for people who look at the flow run."""
    metric, keys = told["metric"], list(told["trials"][0]["params"]) if told["trials"] else []
    lines = [f"# {told['recipe']}: {len(told['trials'])} trials", ""]
    lines += [f"| trial | {metric} | {' | '.join(keys)} | state | seconds |", f"|{'---|' * (len(keys) + 4)}"]
    for t in ranked(told):
        value = "" if t["value"] is None else f"{t['value']:.4g}"
        cells = [
            str(t["number"]),
            value,
            *(f"{v}" for v in t["params"].values()),
            t["state"],
            f"{t['seconds'] or 0:.0f}",
        ]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    shares = [f"- {key}: {share:.0%}" for key, share in told["importance"].items()]
    return "\n".join([*lines, "", *(["Explains the variance:", "", *shares] if shares else [])])


def ranked(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials of a report: the best first, then what has no value."""
    sign = -1 if told["better"] == "higher" else 1
    finished = [t for t in told["trials"] if t["state"] == "finished"]
    others = [t for t in told["trials"] if t["state"] != "finished"]
    return [*sorted(finished, key=lambda t: (sign * t["value"], t["number"])), *others]


def save(study: Study, told: Mapping[str, Any]) -> None:
    """Keep the report beside the study: it is what says that nothing is left to do."""
    write(study.directory / REPORT, json.dumps(told, indent=1) + "\n")


def _told(study: Study) -> dict[str, Any] | None:
    """The report of a complete study, where it was told to the end."""
    try:
        found: dict[str, Any] = json.loads((study.directory / REPORT).read_text())
    except (OSError, ValueError):
        return None
    same = found["trials"] == json.loads(json.dumps([o.as_dict() for o in study.outcomes()]))
    return found if same and study.complete() and Path(found["best_recipe"]).exists() else None


def _as_file(recipe: Recipe, best: tuning.Outcome) -> str:
    """A recipe as a user may write it: what is as by default is left out."""
    values = " ".join(", ".join(tuning.overrides(best.params)).split())
    head = f"# The best of a search by `flywheel tune`, trial {best.number}: {values}\n"
    written = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return head + yaml.safe_dump(written, sort_keys=False)


def write(path: Path, text: str) -> None:
    """Replace a file in one move."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    os.replace(draft, path)


def _names_hub(recipe: Recipe) -> bool:
    """Whether the recipe or one of its trials looks something up on the Hugging Face hub."""
    space = wanted(recipe).space
    named = [key for key in space if key.endswith("path")]
    trials = [resolve(recipe, ["tune=null", *tuning.overrides({k: v})]) for k in named for v in space[k].probes]
    return any(local.names_hub(one) for one in (recipe, *trials))
