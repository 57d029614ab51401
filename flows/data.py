"""What `flywheel data ...` does: check the data of a recipe, and look at one source."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

from flows.recipes import resolve
from flows.report import line
from flywheel.counts import Counts
from flywheel.errors import SourceError
from flywheel.plan import plan
from flywheel.recipe import Recipe
from flywheel.recipe_sources import Source
from flywheel.record import Quarantined
from flywheel.sources import snapshots
from flywheel.sources.base import named_sources
from flywheel.validation import FIRST_STAGE, SPLITS
from infra.settings import Settings

STEPS = ("ingest", "prepare", "validate")
OBJECTS = 50
"""Objects of a bucket that a preview fetches."""
LEFT_LOOKED_AT = 100_000
"""Rows that were left out, among which examples are looked for."""


class _NoRegistry:
    """The data half asks no registry."""

    uri = ""

    def fault(self, registered: Mapping[str, Any]) -> str:
        return ""

    def rival(self, name: str, weights: str) -> str:
        return ""


def check(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Run everything up to validation, and count: read, kept, dropped and quarantined by source and in total."""
    from flows import local
    from flywheel import artifact

    started, settings = time.monotonic(), Settings.load()
    recipe = resolve(path, overrides)
    planned = plan(recipe, settings.store, _NoRegistry(), last=STEPS[-1])
    if all(step.cached for step in planned) and not snapshots.remote(recipe.data.sources):
        sys.stderr.write(f"{recipe.name}: every step is up to date, nothing to do\n")
        found = {
            s.name: artifact.load(artifact.location(settings.store, s.name, s.fingerprint)).summary for s in planned
        }
        result = report(recipe.name, found, [{**line(step), "seconds": 0.0} for step in planned])
    else:
        local.prepare_environment(hub=local.names_hub(recipe))
        with local.server(settings) as api:
            os.environ["PREFECT_API_URL"] = api
            from flows.ingest import ingest

            result = ingest(recipe)
    marks = {
        step["name"]: artifact.location(settings.store, step["name"], step["fingerprint"]) for step in result["steps"]
    }
    return {**result, **_look(recipe, marks), "seconds": time.monotonic() - started}


def _look(recipe: Recipe, steps: Mapping[str, Path]) -> dict[str, Any]:
    """Where the outcome lies, and for each source and reason the first row that was quarantined before validation."""
    from flywheel import shards
    from flywheel.sources.preview import advice

    types = {named.name: named.source.type for named in named_sources(recipe.data.sources, {})}
    lists = [steps[name] / shards.LEFT for name in ("ingest", "prepare")]
    examples: dict[tuple[str, str], dict[str, str]] = {}
    for left in islice((row for path in lists for row in shards.read_left(path)), LEFT_LOOKED_AT):
        if isinstance(left, Quarantined) and (left.source, left.reason) not in examples:
            detail = left.detail or advice(types.get(left.source, ""), left.reason)
            key = (left.source, left.reason)
            examples[key] = {"source": left.source, "reason": left.reason, "path": left.path, "detail": detail}
    valid = steps["validate"]
    found = {"card": valid / "DATACARD.md", "docs": valid / "docs" / "index.html", "rows": valid}
    return {
        "examples": list(examples.values()),
        "files": {
            **{name: str(path) for name, path in found.items() if path.exists()},
            "left": [str(p) for p in lists],
        },
    }


def report(name: str, summaries: Mapping[str, Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of the three steps as one: what ingest read and validation kept; left out by any of them."""
    counts = Counts.of(summaries["ingest"])
    for step in STEPS[1:]:
        counts = counts.after(Counts.of(summaries[step]))
    prepared, validated = summaries["prepare"], summaries["validate"]
    return {
        "recipe": name,
        "steps": list(steps),
        **counts.as_json(),
        "rows": {name: validated["rows"][name] for name in SPLITS if name in validated["rows"]},
        "augmented": sum(validated["rows"].get(name, 0) for name in FIRST_STAGE) - validated["kept"],
        "bytes": prepared["bytes"],
        "operations": prepared["operations"],
        "expectations": validated["expectations"],
    }


def preview(written: str) -> dict[str, Any]:
    """The first rows of a source, their type, and a summary of their quality; of what is remote a little is fetched."""
    import tempfile

    from flows import local
    from flywheel.sources import preview as core
    from flywheel.workers import Pool

    whole = core.source(written)
    source = core.a_little(whole)
    local.prepare_environment(hub=source.type == "huggingface")
    with tempfile.TemporaryDirectory() as directory, Pool(1) as pool:
        scratch = Path(directory)
        (named,) = named_sources([source], {})
        if snapshots.remote([source]):
            os.environ["PREFECT_HOME"] = directory  # which its import makes
            from tasks.acquire import fetch

            fetch(Settings.load(), named, store=scratch, most=OBJECTS)
            (named,) = named_sources([source], snapshots.roots(scratch, [source]))
        return {"source": _written(whole), **core.preview(named, scratch, pool)}


def _written(source: Source) -> dict[str, Any]:
    """A source as a recipe writes it, its own keys first."""
    values = source.model_dump(mode="json", exclude_defaults=True)
    return {key: values[key] for key in dict.fromkeys((*type(source).__annotations__, *values)) if key in values}


def label(path: Path, output: Path, count: int, strategy: str) -> int:
    """Write training rows of a checked recipe to a file that people label; returns their number."""
    from flywheel import artifact, labelling

    settings, recipe = Settings.load(), resolve(path)
    step = plan(recipe, settings.store, _NoRegistry(), last=STEPS[-1])[-1]
    if not step.cached:
        raise SourceError(
            f"rows of {recipe.name}",
            found=f"not prepared yet: {step.reason}",
            expected="rows that met their expectations",
            remedy=f"run `flywheel data check {path}` first",
        )
    if strategy not in get_args(labelling.Strategy):
        raise SourceError("--strategy", found=strategy, expected=", ".join(get_args(labelling.Strategy)))
    rows = artifact.location(settings.store, step.name, step.fingerprint) / "train.parquet"
    return labelling.export(rows, output, count, cast(labelling.Strategy, strategy), recipe.seed)
