"""MLflow as the registry: versions of a model, their files, and the aliases that say which one is served.

A version is registered once for each fingerprint: its files are uploaded once, as an MLflow LoggedModel, and a repeated
call, also after a kill at any moment, ends with the same single version. Beside the bundle lie

    MLmodel         signature and the flavor `flywheel`; no python_function flavor, so MLflow never loads it as code
    README.md       the model card
    MANIFEST.json   {"files": {relative path: sha256}} of everything else; its own sha256 is a tag of the version
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from infra.errors import RegistryError
from infra.settings import Settings
from infra.tracking import client

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

MANIFEST, CARD = "MANIFEST.json", "README.md"
FINGERPRINT, SEAL, MODEL_ID = "flywheel.fingerprint", "flywheel.manifest_sha256", "flywheel.logged_model"
DEFAULT_ALIAS = "champion"
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


@dataclass(frozen=True)
class Version:
    """One registered version."""

    name: str
    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str | None
    created: int
    """Milliseconds since 1970, UTC."""


def register(settings: Settings, candidate: Candidate) -> Version:
    """Upload the bundle and make a version of it, or return the version that this fingerprint has already."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    api = client(settings)
    if found := _same(settings, candidate):
        return _announced(settings, found)
    model = _logged_model(settings, candidate)
    if model.status != LoggedModelStatus.READY:
        seal = _upload(settings, candidate, model)
        _log_metrics(settings, candidate, model)
        api.set_logged_model_tags(model.model_id, {SEAL: seal})
        api.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        model = api.get_logged_model(model.model_id)
    _link(settings, candidate.run_id, model.model_id)
    try:
        api.create_registered_model(candidate.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = api.create_model_version(
        candidate.name,
        model.artifact_location,
        run_id=candidate.run_id,
        tags={**candidate.tags, FINGERPRINT: candidate.fingerprint, SEAL: model.tags[SEAL], MODEL_ID: model.model_id},
        description=_description(candidate.card),
        model_id=model.model_id,
    )
    return _announced(settings, _version(created))


def set_alias(settings: Settings, name: str, alias: str, version: int) -> None:
    """Move an alias to a version: the one atomic step of a promotion or a rollback."""
    from mlflow.exceptions import MlflowException

    try:
        client(settings).set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        raise _unknown(settings, f"{name}/{version}", name) from error


def resolve(settings: Settings, reference: str) -> Version:
    """The version that `NAME` (its champion), `NAME@alias` or `NAME/version` stands for. Raises RegistryError."""
    from mlflow.exceptions import MlflowException

    api = client(settings)
    reference = reference.removeprefix("models:/")
    name, slash, number = reference.partition("/")
    name, _, alias = name.partition("@")
    try:
        if slash:
            return _version(api.get_model_version(name, number))
        return _version(api.get_model_version_by_alias(name, alias or DEFAULT_ALIAS))
    except MlflowException as error:
        raise _unknown(settings, reference, name) from error


@dataclass(frozen=True)
class Registered:
    """What the plan asks: does the registry still hold what a run registered?"""

    settings: Settings

    @property
    def uri(self) -> str:
        return self.settings.tracking_uri

    def fault(self, registered: Mapping[str, Any]) -> str:
        """Empty while the version is there, its files are sound, and the alias that it was given is still its own."""
        name, number, alias = registered["name"], registered["version"], registered["alias"]
        database = Path(self.uri.removeprefix("sqlite:///"))
        if self.uri.startswith("sqlite:///") and not database.exists():
            return "registry: its database is gone"
        try:
            version = resolve(self.settings, f"{name}/{number}")
            holder = resolve(self.settings, f"{name}@{alias}")
        except RegistryError:
            return f"registry: version {number} or its alias @{alias} is gone"
        if holder.version != number:
            return f"registry: @{alias} is version {holder.version}"
        return "" if _sound(self.settings, version) else f"registry: the files of version {number} are damaged"


def models(settings: Settings, name: str | None = None) -> list[Version]:
    """All versions, or those of one model, by name and then newest first."""
    api = client(settings)
    found: list[Version] = []
    token = None
    while True:
        page = api.search_model_versions(f"name = '{name}'" if name else None, max_results=1000, page_token=token)
        found += [_version(raw) for raw in page]
        if not (token := page.token):
            break
    aliases = {model: api.get_registered_model(model).aliases for model in {v.name for v in found}}
    named = [
        Version(**{**vars(v), "aliases": tuple(sorted(a for a, n in aliases[v.name].items() if int(n) == v.version))})
        for v in found
    ]
    return sorted(named, key=lambda v: (v.name, -v.version))


def fetch(settings: Settings, version: Version, into: Path) -> Path:
    """The verified directory of a version: where it lies when this machine holds it, else a download made at `into`.

    Every file is compared with MANIFEST.json, and that with the seal in the registry; a mismatch raises RegistryError.
    """
    uri = client(settings).get_model_version_download_uri(version.name, str(version.version))
    if (local := _local(uri)) is not None and local.is_dir():
        return _verified(local, version)
    if into.is_dir() and _fault(into, version) is None:
        return into
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as scratch:
        ready = _verified(_download(settings, uri, Path(scratch, "files")), version)
        shutil.rmtree(into, ignore_errors=True)
        ready.rename(into)
    return into


def _local(uri: str) -> Path | None:
    """The directory that a URI names on this machine."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path) if parts.scheme else uri) if parts.scheme in ("", "file") else None


def _sound(settings: Settings, version: Version) -> bool:
    """Whether the files are as they were registered; those on another machine are verified when they are fetched."""
    local = _local(client(settings).get_model_version_download_uri(version.name, str(version.version)))
    return local is None or _fault(local, version) is None


def _download(settings: Settings, uri: str, into: Path) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    into.mkdir()
    try:
        path = mlflow.artifacts.download_artifacts(
            artifact_uri=uri, dst_path=str(into), tracking_uri=settings.tracking_uri
        )
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"files at {uri}",
            found=str(error).splitlines()[0],
            expected="the directory that was registered",
            remedy="start the tracking server that holds it, or run the recipe again to register a new version",
        ) from error
    return Path(path)


def _same(settings: Settings, candidate: Candidate) -> Version | None:
    """The sound version of this fingerprint; a damaged one loses the claim to it."""
    condition = f"name = '{candidate.name}' and tags.`{FINGERPRINT}` = '{candidate.fingerprint}'"
    api = client(settings)
    for found in api.search_model_versions(condition):
        version = _version(api.get_model_version(found.name, found.version))
        if _sound(settings, version):
            return version
        disowned = f"damaged {candidate.fingerprint}"
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


def _upload(settings: Settings, candidate: Candidate, model: LoggedModel) -> str:
    """Upload the bundle, then what describes it. Returns the sha256 of MANIFEST.json."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        described = Path(scratch)
        (described / CARD).write_text(candidate.card)
        mlmodel = Model(run_id=candidate.run_id, signature=_signature(candidate.kind), model_id=model.model_id)
        mlmodel.add_flavor("flywheel", manifest="manifest.json", kind=candidate.kind)
        mlmodel.save(str(described / "MLmodel"))
        files = {**_digests(candidate.bundle), **_digests(described)}
        manifest = json.dumps({"files": dict(sorted(files.items()))}, indent=1)
        (described / MANIFEST).write_text(manifest)
        client(settings).log_model_artifacts(model.model_id, str(candidate.bundle))
        client(settings).log_model_artifacts(model.model_id, str(described))
    return hashlib.sha256(manifest.encode()).hexdigest()


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


def _version(raw: ModelVersion) -> Version:
    return Version(
        name=raw.name,
        version=int(raw.version),
        aliases=tuple(sorted(raw.aliases or ())),
        tags=dict(raw.tags),
        run_id=raw.run_id or None,
        created=int(raw.creation_timestamp),
    )


def _unknown(settings: Settings, reference: str, name: str) -> RegistryError:
    known = models(settings)
    mine = [v for v in known if v.name == name]
    shown = [f"{v.name}/{v.version}{''.join(f' @{a}' for a in v.aliases)}" for v in mine[:5]]
    return RegistryError(
        f"model {reference}",
        found=", ".join(shown) or f"models {', '.join(sorted({v.name for v in known})) or '(none)'}",
        expected="NAME, NAME@alias or NAME/version of a registered model",
        remedy="run the recipe until its gate promotes a version" if mine else "run a recipe to register one",
    )


def _digests(directory: Path) -> dict[str, str]:
    """Relative path → sha256 of every file, MANIFEST.json left out."""
    digests = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _verified(directory: Path, version: Version) -> Path:
    if fault := _fault(directory, version):
        raise RegistryError(
            f"files of model {version.name}/{version.version}",
            found=f"{fault} in {directory}",
            expected="the files that were registered, byte for byte",
            remedy="serve another version, or run the recipe again to register a sound one",
        )
    return directory


def _fault(directory: Path, version: Version) -> str | None:
    """What is wrong with a directory, or None: a changed manifest, a missing, changed or added file, or a link."""
    try:
        manifest = (directory / MANIFEST).read_bytes()
        expected = json.loads(manifest)["files"]
    except (OSError, ValueError, KeyError):
        return f"no readable {MANIFEST}"
    if hashlib.sha256(manifest).hexdigest() != version.tags.get(SEAL):
        return f"a {MANIFEST} that is not the registered one"
    if links := [path.name for path in directory.rglob("*") if path.is_symlink()]:
        return f"a link {links[0]}"
    present = _digests(directory)
    wrong = sorted({*expected.items()} ^ {*present.items()})
    return f"{wrong[0][0]} changed, missing or added" if wrong else None


def _description(card: str) -> str:
    """The card without its YAML front matter, as long as the table allows."""
    text = card.split("---\n", 2)[2].lstrip() if card.startswith("---\n") and card.count("---\n") > 1 else card
    tail = f"\n\n(shortened; the whole card is {CARD} beside the model)"
    return text if len(text) <= DESCRIPTION_LIMIT else text[: DESCRIPTION_LIMIT - len(tail)] + tail
