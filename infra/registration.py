"""Registration: a bundle and what goes with it → one version of a model.

A version is registered once for each fingerprint: its files are uploaded once, as an MLflow LoggedModel, and a repeated
call, also after a kill at any moment, ends with the same single version. Beside the bundle, which is served, lie

    weights/        the trained weights (safetensors, tokenizer), to be trained on or measured again
    README.md       the model card, and the other papers of the candidate
    MLmodel         signature and the flavor `flywheel`; no python_function flavor, so MLflow never loads it as code
    MANIFEST.json   sha256 of every file, and model.sig: see infra/seals.py
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra import seals
from infra.settings import Settings
from infra.tracking import client
from infra.versions import FINGERPRINT, MODEL_ID, SEAL, SIGNATURE, Version, from_mlflow

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

CARD, WEIGHTS = "README.md", "weights"
DESCRIPTION_LIMIT = 5000  # characters that MLflow's table holds


@dataclass(frozen=True)
class Candidate:
    """What is to become a version of the model `name`."""

    name: str
    bundle: Path
    """Directory that is served."""
    run_id: str
    """The unfinished run that made it."""
    fingerprint: str
    """Two candidates with the same fingerprint are one version."""
    kind: Literal["text", "image"]
    """What the model answers with."""
    card: str
    """Model card, Markdown."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Lineage: fingerprints of data, code and recipe, parents, licences."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights: Path | None = None
    """Directory of the trained weights."""
    papers: Path | None = None
    """Directory of what is kept beside the bundle: recipe, evaluation, packages."""


def register(settings: Settings, candidate: Candidate) -> Version:
    """Upload the files and make a version of them, or return the version that this fingerprint has already."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    api = client(settings)
    if found := _same(settings, candidate):
        return _announced(settings, found)
    model = _logged_model(settings, candidate)
    if model.status != LoggedModelStatus.READY:
        marks = _upload(settings, candidate, model)
        _log_metrics(settings, candidate, model)
        api.set_logged_model_tags(model.model_id, marks)
        api.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        model = api.get_logged_model(model.model_id)
    _link(settings, candidate.run_id, model.model_id)
    try:
        api.create_registered_model(candidate.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    marks = {name: model.tags[name] for name in (SEAL, SIGNATURE) if name in model.tags}
    created = api.create_model_version(
        candidate.name,
        model.artifact_location,
        run_id=candidate.run_id,
        tags={**candidate.tags, FINGERPRINT: candidate.fingerprint, **marks, MODEL_ID: model.model_id},
        description=_description(candidate.card),
        model_id=model.model_id,
    )
    return _announced(settings, from_mlflow(created))


def _same(settings: Settings, candidate: Candidate) -> Version | None:
    """The sound version of this fingerprint; one that is damaged, or not signed where it is to be, loses the claim to
    it."""
    condition = f"name = '{candidate.name}' and tags.`{FINGERPRINT}` = '{candidate.fingerprint}'"
    api = client(settings)
    for found in api.search_model_versions(condition):
        version = from_mlflow(api.get_model_version(found.name, found.version))
        unsigned = settings.signing_key is not None and SIGNATURE not in version.tags
        if not unsigned and seals.sound(settings, version):
            return version
        disowned = f"{'unsigned' if unsigned else 'damaged'} {candidate.fingerprint}"
        api.set_model_version_tag(version.name, str(version.version), FINGERPRINT, disowned)
        api.set_logged_model_tags(version.tags[MODEL_ID], {FINGERPRINT: disowned})
    return None


def _announced(settings: Settings, version: Version) -> Version:
    """Tell the LoggedModel which version it is, as the server does and a bare database does not."""
    versions = json.dumps([{"name": version.name, "version": version.version}])
    client(settings).set_logged_model_tags(version.tags[MODEL_ID], {"mlflow.modelVersions": versions})
    return version


def _logged_model(settings: Settings, candidate: Candidate) -> LoggedModel:
    """The LoggedModel of this fingerprint, finished or not, or a new one."""
    api = client(settings)
    experiment = api.get_run(candidate.run_id).info.experiment_id
    found = api.search_logged_models([experiment], f"tags.`{FINGERPRINT}` = '{candidate.fingerprint}'", max_results=1)
    if found:
        return found[0]
    tags = {**candidate.tags, FINGERPRINT: candidate.fingerprint}
    return api.create_logged_model(experiment, candidate.name, candidate.run_id, tags, model_type=candidate.kind)


def _upload(settings: Settings, candidate: Candidate, model: LoggedModel) -> dict[str, str]:
    """Upload everything, with its manifest and, where a key is set, its signature. Returns the tags of both."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch)
        _link_files(candidate.bundle, whole)
        if candidate.weights is not None:
            _link_files(candidate.weights, whole / WEIGHTS)
        if candidate.papers is not None:
            _link_files(candidate.papers, whole)
        (whole / CARD).unlink(missing_ok=True)
        (whole / CARD).write_text(candidate.card)
        mlmodel = Model(run_id=candidate.run_id, signature=_signature(candidate.kind), model_id=model.model_id)
        mlmodel.add_flavor("flywheel", manifest="manifest.json", kind=candidate.kind)
        mlmodel.save(str(whole / "MLmodel"))
        marks = {SEAL: seals.write(whole)}
        if signature := seals.sign(settings, whole):
            marks[SIGNATURE] = signature
        client(settings).log_model_artifacts(model.model_id, str(whole))
    return marks


def _link_files(source: Path, into: Path) -> None:
    """A tree of links to files, which uploads follow: what is large is not copied twice."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            target = into / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file.resolve())


def _signature(kind: Literal["text", "image"]) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    answer = ColSpec("string", "completion") if kind == "text" else ColSpec("binary", "png")
    return ModelSignature(inputs=Schema([ColSpec("string", "prompt")]), outputs=Schema([answer]))


def _log_metrics(settings: Settings, candidate: Candidate, model: LoggedModel) -> None:
    """Metrics of the LoggedModel, which are the columns of the table of models."""
    from mlflow.entities import Metric

    held = {metric.key for metric in model.metrics or ()}
    now = int(time.time() * 1000)
    fresh = [Metric(k, v, now, 0, model_id=model.model_id) for k, v in candidate.metrics.items() if k not in held]
    if fresh:
        client(settings).log_batch(candidate.run_id, metrics=fresh)


def _link(settings: Settings, run_id: str, model_id: str) -> None:
    """Show the model on the page of its run."""
    from mlflow.entities import LoggedModelOutput

    outputs: Any = client(settings).get_run(run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
        client(settings).log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _description(card: str) -> str:
    """The card without its YAML front matter, as long as the table allows."""
    text = card.split("---\n", 2)[2].lstrip() if card.startswith("---\n") and card.count("---\n") > 1 else card
    tail = f"\n\n(shortened; the whole card is {CARD} beside the model)"
    return text if len(text) <= DESCRIPTION_LIMIT else text[: DESCRIPTION_LIMIT - len(tail)] + tail
