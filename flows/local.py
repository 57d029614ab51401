"""Runs on this machine: what `flywheel run` and `flywheel serve` do around the flow."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows import report
from flows.preflight import preflight
from flows.recipes import resolve
from flywheel import artifact
from flywheel.plan import PlannedStep, plan
from flywheel.recipe import Recipe
from flywheel.recipe_sources import HuggingFaceSource
from flywheel.sources import snapshots
from infra import pools, prefect_server, registry
from infra.errors import SettingsError
from infra.settings import Settings, stay_on_this_machine


def prepare_environment(*, hub: bool = False) -> None:
    """Settings for this process and its children, before prefect or mlflow is imported."""
    stay_on_this_machine(hub=hub)
    os.environ.update(Settings.load().environment())
    # An error is explained once, by the command; Prefect keeps its own account of it for the UI.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def run(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Turn the wheel once and return the report. Where every step hits there is nothing to orchestrate.

    With a Prefect server at hand the run is recorded there all the same, its steps as Cached.
    """
    started, settings = time.monotonic(), Settings.load()
    recipe = resolve(path, overrides)
    prepare_environment(hub=names_hub(recipe))
    planned = plan(recipe, settings.store, registry.Registered(settings))
    preflight(recipe, planned, settings)
    running = prefect_server.running(settings)
    remote = snapshots.remote(recipe.data.sources)  # they are asked at every run
    if running is None and not remote and all(step.cached for step in planned):
        sys.stderr.write(f"{recipe.name}: every step is up to date, nothing to do\n")
        result = _from_store(recipe, settings, planned, time.monotonic() - started)
    else:
        with server(settings, running) as api:
            os.environ["PREFECT_API_URL"] = api
            from flows.lifecycle import lifecycle

            result = lifecycle(recipe)
        result["seconds"] = time.monotonic() - started
    report.save(settings.home, result)
    return result


@contextmanager
def server(settings: Settings, running: str | None = None) -> Iterator[str]:
    """The API of a running server, or of a temporary one; the imports overlap with its start."""
    running = running or prefect_server.running(settings)
    if running:
        yield running
        return
    temporary = prefect_server.Temporary(settings)
    try:
        os.environ["PREFECT_API_URL"] = temporary.url
        import flows.lifecycle  # noqa: F401  (about 8 s of imports, while the server starts)

        yield temporary.ready()
    finally:
        _send_what_waits()
        temporary.stop()


def work(pool: str) -> None:
    """Be a worker of a pool. Raises SettingsError where no Prefect server answers."""
    prepare_environment(hub=True)
    settings = Settings.load()
    api = prefect_server.running(settings)
    if api is None:
        raise SettingsError(
            "Prefect server",
            found=f"none answers at {settings.prefect_api_url or 'the address of `flywheel up`'}",
            expected="the server whose runs this machine takes",
            remedy="set PREFECT_API_URL, or start `flywheel up` here",
        )
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
    pools.work(settings, api, pool, lambda line: print(line, flush=True))


def _send_what_waits() -> None:
    """Prefect sends logs and events from threads; what is left at exit would wait for a server that is gone."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)


def _from_store(recipe: Recipe, settings: Settings, planned: Sequence[PlannedStep], seconds: float) -> dict[str, Any]:
    """The report of a run in which every step hits, from the artifacts alone."""
    done = {}
    for step in planned:
        found = artifact.load(artifact.location(settings.store, step.name, step.fingerprint))
        done[step.name] = {"summary": found.summary}
    run_id = done["register"]["summary"]["run_id"]
    return report.build(recipe, planned, done, flow_run_id=None, mlflow_run_id=run_id, seconds=seconds)


def names_hub(recipe: Recipe) -> bool:
    """Whether a model or a dataset is to be looked up on the Hugging Face hub."""
    named = [recipe.model.path, *(s.path for s in recipe.data.sources if isinstance(s, HuggingFaceSource))]
    return any(path is not None and not Path(path).exists() for path in named)


def next_commands(result: dict[str, Any], recipe: Path) -> list[tuple[str, str]]:
    """What to type after a run."""
    commands = [
        ("flywheel up", "browse the run in Prefect and MLflow, and serve the champion"),
        (f"flywheel plan {recipe}", "what would run again, and why"),
    ]
    if result["served"]["served"]:
        commands.insert(0, (result["served"]["command"], "serve it to any OpenAI client"))
    model = result["model"]
    if model["alias"] == "candidate":
        approve = f"flywheel promote {model['name']}/{model['version']}"
        commands.insert(0, (approve, "approve it, or decide in Prefect's form while `flywheel up` runs"))
    return commands


def serve(models: Sequence[str], host: str, port: int | None) -> int:
    """Fetch registered models and become their server. Returns the exit code."""
    prepare_environment()
    settings = Settings.load()
    arguments = []
    for reference in models:
        version = registry.resolve(settings, reference)
        bundle = registry.fetch(settings, version, settings.home / "served" / f"{version.name}-{version.version}")
        arguments += ["--bundle", f"{version.name}={bundle}"]
    command = [
        sys.executable,
        "-m",
        "serving",
        *arguments,
        "--host",
        host,
        "--port",
        str(settings.serve_port if port is None else port),
        "--feedback",
        str(settings.home / "feedback"),
    ]
    os.execv(sys.executable, command)
