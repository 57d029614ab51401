"""MLflow runs: one parent for a lifecycle, one child for each step.

A run that a kill left unfinished is continued by the next lifecycle with the same key, and what it holds already is not
logged twice: points of a metric are told apart by (name, step), parameters by name, datasets by (name, digest).
"""

from __future__ import annotations

import fcntl
import functools
import json
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from infra.errors import TrackingError
from infra.settings import Settings, stay_on_this_machine

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

KEY, STEP, PARENT, NAME = "flywheel.key", "flywheel.step", "mlflow.parentRunId", "mlflow.runName"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the UI's view for training, not the one for agents
SYSTEM_METRICS_SECONDS = 2
LONGEST_NAME = 250
"""Characters of a metric's name."""
_NO_NAME = re.compile(r"[^\w\-. :/]+", re.ASCII)


def client(settings: Settings) -> MlflowClient:
    """The MLflow client of these settings; a missing SQLite database is made first (about 1.5 s)."""
    prepare_database(settings.tracking_uri)
    return _client(settings.tracking_uri)


@functools.cache
def _client(uri: str) -> MlflowClient:
    stay_on_this_machine()
    _answering(uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _answering(uri: str) -> None:
    """Fail at once where nothing listens: MLflow itself would try again for minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    try:
        socket.create_connection(
            (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), 5
        ).close()
    except OSError as error:
        raise TrackingError(
            f"tracking server {uri}",
            found=str(error),
            expected="an MLflow server that answers",
            remedy="start it (`flywheel up`), or unset MLFLOW_TRACKING_URI to track into a local file",
        ) from error


def prepare_database(uri: str) -> None:
    """Make a SQLite database aside and rename it: a kill amid MLflow's migrations would leave half a schema."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        _client(f"sqlite:///{draft}").search_experiments(max_results=1)
        draft.rename(path)


class Run:
    """One MLflow run that is being written."""

    def __init__(self, settings: Settings, run: MlflowRun) -> None:
        self.settings = settings
        self.id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self._client = client(settings)
        self._params = set(run.data.params)
        self._points = {
            (name, point.step)
            for name in run.data.metrics
            if not name.startswith("system/")
            for point in self._client.get_metric_history(self.id, name)
        }

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers at one step."""
        self.log_history([{"step": step, **metrics}])

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """A curve: rows of `{"step": 20, "loss": 3.1, ...}`; fields that are no numbers are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = []
        for row in history:
            step = int(row.get("step", 0))
            for written, value in row.items():
                name = metric_name(written)
                if name == "step" or not isinstance(value, int | float) or (name, step) in self._points:
                    continue
                self._points.add((name, step))
                fresh.append(Metric(name, float(value), now, step))
        for start in range(0, len(fresh), 1000):
            self._client.log_batch(self.id, metrics=fresh[start : start + 1000])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Parameters; nested mappings become dotted names. MLflow cuts values at 6,000 characters."""
        from mlflow.entities import Param

        fresh = [Param(k, str(v)) for k, v in flat(params).items() if k not in self._params]
        self._params.update(param.key for param in fresh)
        for start in range(0, len(fresh), 100):
            self._client.log_batch(self.id, params=fresh[start : start + 100])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags, such as `cached.train: <fingerprint>`; an earlier value is replaced."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_text(self, text: str, name: str) -> None:
        """A text file, such as `recipe.yaml`."""
        self._client.log_text(self.id, text, name)

    def log_picture(self, png: bytes, name: str) -> None:
        """A picture, kept as `pictures/<name>`; `name` ends in .png."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, name)
            path.write_bytes(png)
            self.log_file(path, "pictures")

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Rows of one shape as a table that MLflow's pages show; `name` ends in .json."""
        columns = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
        self._client.log_table(self.id, columns, name)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """A file or a whole directory, kept under `folder`."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(self.id, str(path), folder)

    def log_dataset(self, name: str, parquet: Path, digest: str, context: Literal["training", "evaluation"]) -> None:
        """An input of the run: name, digest (cut to 36 characters), columns and number of rows; no data is copied."""
        import pyarrow.parquet as pq
        from mlflow.entities import Dataset, DatasetInput, InputTag

        file = pq.ParquetFile(parquet)
        columns = [{"name": c.name, "type": str(c.type), "required": not c.nullable} for c in file.schema_arrow]
        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="local",
            source=json.dumps({"uri": str(parquet)}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": file.metadata.num_rows, "bytes": parquet.stat().st_size}),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self._client.log_inputs(self.id, datasets=[DatasetInput(dataset, tags)])


@contextmanager
def lifecycle_run(
    settings: Settings, name: str, key: str, *, tags: Mapping[str, str], params: Mapping[str, Any]
) -> Iterator[Run]:
    """The parent run of one lifecycle in the experiment `name`.

    `key` identifies the plan: an unfinished run with the same key is continued, else a new one is made. The run ends
    FINISHED, FAILED after an exception, or KILLED after an interrupt; a step's run that a kill left open ends KILLED.
    """
    mlflow_client = client(settings)
    experiment = _experiment(settings, name)
    found = _unfinished(settings, experiment, {KEY: key})
    fixed = {NAME: f"{name}-{key[:8]}", "mlflow.source.name": "flywheel", KEY: key}
    run = Run(settings, found or mlflow_client.create_run(experiment, tags={**tags, **fixed}))
    if found and tags:
        run.set_tags(tags)
    run.log_params(params)
    with _ending(settings, run):
        try:
            yield run
        finally:
            while child := _unfinished(settings, experiment, {PARENT: run.id}):
                mlflow_client.set_terminated(child.info.run_id, "KILLED")


@contextmanager
def study_run(settings: Settings, name: str, key: str, *, params: Mapping[str, Any]) -> Iterator[Run]:
    """The run of a search, parent of the runs of its trials: one for each `key`, opened again when the search goes on.

    It ends FINISHED, FAILED after an exception, or KILLED after an interrupt.
    """
    mlflow_client = client(settings)
    experiment = _experiment(settings, name)
    found = mlflow_client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
    tags = {NAME: key, "mlflow.source.name": "flywheel", KEY: key}
    run = Run(settings, found[0] if found else mlflow_client.create_run(experiment, tags=tags))
    mlflow_client.update_run(run.id, status="RUNNING")
    run.log_params(params)
    with _ending(settings, run):
        yield run


def known_run(settings: Settings, run_id: str) -> Run:
    """A run that somebody else begins and ends."""
    return Run(settings, client(settings).get_run(run_id))


@contextmanager
def step_run(settings: Settings, parent_id: str, step: str) -> Iterator[Run]:
    """The child run of one step, with system metrics every two seconds. Ends like `lifecycle_run`."""
    mlflow_client = client(settings)
    experiment = mlflow_client.get_run(parent_id).info.experiment_id
    found = _unfinished(settings, experiment, {PARENT: parent_id, STEP: step})
    tags = {NAME: step, "mlflow.source.name": "flywheel", PARENT: parent_id, STEP: step}
    run = Run(settings, found or mlflow_client.create_run(experiment, tags=tags))
    with _ending(settings, run), _system_metrics(settings, run.id):
        yield run


def text(settings: Settings, run_id: str, name: str) -> str:
    """A text file of a run, such as `recipe.yaml`. Raises TrackingError where it is not there."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        uri = f"{client(settings).get_run(run_id).info.artifact_uri}/{name}"
        with tempfile.TemporaryDirectory() as scratch:
            path = mlflow.artifacts.download_artifacts(uri, dst_path=scratch, tracking_uri=settings.tracking_uri)
            return Path(path).read_text()
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"{name} of run {run_id}",
            found=str(error).splitlines()[0],
            expected="the file that the run logged",
            remedy="start the tracking server that holds the run",
        ) from error


def page(settings: Settings, run: Run) -> str:
    """The address of a run in MLflow's UI: of the tracking server, or of the one that `flywheel up` starts."""
    by_server = settings.tracking_uri.startswith(("http://", "https://"))
    root = settings.tracking_uri.rstrip("/") if by_server else f"http://127.0.0.1:{settings.mlflow_port}"
    return f"{root}/#/experiments/{run.experiment_id}/runs/{run.id}"


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted names; lists become JSON."""
    result: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return result


def metric_name(written: str) -> str:
    """A name that MLflow takes for a metric: an expectation's `f(column="x")` is `f column x`."""
    return " ".join(_NO_NAME.sub(" ", written).split())[:LONGEST_NAME]


def _experiment(settings: Settings, name: str) -> str:
    from mlflow.exceptions import MlflowException

    mlflow_client = client(settings)
    found = mlflow_client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            mlflow_client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    by_server = settings.tracking_uri.startswith(("http://", "https://"))
    location = None if by_server else f"{settings.artifact_root.rstrip('/')}/{name}"
    try:
        return str(mlflow_client.create_experiment(name, artifact_location=location, tags=KIND))
    except MlflowException:  # another process was first
        if (found := mlflow_client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)


def _unfinished(settings: Settings, experiment: str, tags: Mapping[str, str]) -> MlflowRun | None:
    conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    runs = client(settings).search_runs(
        [experiment], " and ".join(["attributes.status = 'RUNNING'", *conditions]), max_results=1
    )
    return runs[0] if runs else None


@contextmanager
def _ending(settings: Settings, run: Run) -> Iterator[None]:
    end = client(settings).set_terminated
    try:
        yield
    except Exception:
        end(run.id, "FAILED")
        raise
    except BaseException:
        end(run.id, "KILLED")
        raise
    end(run.id, "FINISHED")


@contextmanager
def _system_metrics(settings: Settings, run_id: str) -> Iterator[None]:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor_of: Any = SystemMetricsMonitor
    monitor = monitor_of(
        run_id,
        sampling_interval=SYSTEM_METRICS_SECONDS,
        samples_before_logging=1,
        resume_logging=True,
        tracking_uri=settings.tracking_uri,
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
