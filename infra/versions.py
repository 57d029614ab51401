"""Versions of models as MLflow's registry holds them, and the names that they are found by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from infra.errors import RegistryError
from infra.settings import Settings
from infra.tracking import client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CANDIDATE, CHALLENGER = "champion", "candidate", "challenger"
"""Aliases: what is served; what waits until a person approves it; what the gate refused, or a person took out."""
FINGERPRINT, SEAL, MODEL_ID = "flywheel.fingerprint", "flywheel.manifest_sha256", "flywheel.logged_model"
SIGNATURE = "flywheel.signature_sha256"
TRAINED, OVER = "flywheel.weights", "flywheel.over"
"""Tags: the fingerprint of the step that made the weights, and the champion that the gate compared them with."""
OBJECTIVE = "flywheel.objective"
"""Tag: the objective's metric with its interval, as JSON."""
ROLLED_BACK, DECLINED = "flywheel.rolled_back", "flywheel.declined"
"""Tags of what a person took out of service, or did not let in: the reason. The gate never promotes such weights."""
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers where a model, a version or an alias is not there."""


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

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def resolve(settings: Settings, reference: str) -> Version:
    """The version that `NAME` (its champion), `NAME@alias` or `NAME/version` stands for. Raises RegistryError."""
    from mlflow.exceptions import MlflowException

    api = client(settings)
    reference = reference.removeprefix("models:/")
    name, slash, number = reference.partition("/")
    name, at, alias = name.partition("@")
    if at and (slash or not alias):
        raise _unknown(settings, reference, name)
    try:
        if slash:
            return from_mlflow(api.get_model_version(name, number))
        return from_mlflow(api.get_model_version_by_alias(name, alias or CHAMPION))
    except MlflowException as error:
        raise _unknown(settings, reference, name) from error


def holder(settings: Settings, name: str, alias: str) -> Version | None:
    """The version that an alias stands for; None where the model or the alias is not there."""
    return _if_there(lambda: client(settings).get_model_version_by_alias(name, alias))


def challenged(settings: Settings, champion: Version | None, weights: str) -> Version | None:
    """The version that weights with this fingerprint challenge: the champion; or where they are the champion's own, the
    version that those were compared with. None where there is none, or it is gone."""
    if champion is None or not weights or champion.tags.get(TRAINED) != weights:
        return champion
    over = champion.tags.get(OVER, "")
    return _if_there(lambda: client(settings).get_model_version(champion.name, over)) if over else None


def _if_there(ask: Callable[[], ModelVersion]) -> Version | None:
    from mlflow.exceptions import MlflowException

    try:
        return from_mlflow(ask())
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def models(settings: Settings, name: str | None = None) -> list[Version]:
    """All versions, or those of one model, by name and then newest first. Raises RegistryError for a name that holds a
    quote, which no search can ask for."""
    if name and "'" in name:
        raise _unknown(settings, name, name)
    api = client(settings)
    found: list[Version] = []
    token = None
    while True:
        page = api.search_model_versions(f"name = '{name}'" if name else None, max_results=1000, page_token=token)
        found += [from_mlflow(raw) for raw in page]
        if not (token := page.token):
            break
    aliases = {model: api.get_registered_model(model).aliases for model in {v.name for v in found}}
    named = [
        replace(v, aliases=tuple(sorted(a for a, n in aliases[v.name].items() if int(n) == v.version))) for v in found
    ]
    return sorted(named, key=lambda v: (v.name, -v.version))


def from_mlflow(raw: ModelVersion) -> Version:
    """What MLflow says of a version."""
    return Version(
        name=raw.name,
        version=int(raw.version),
        aliases=tuple(sorted(raw.aliases or ())),
        tags=dict(raw.tags),
        run_id=raw.run_id or None,
        created=int(raw.creation_timestamp),
    )


def place(settings: Settings, version: Version) -> tuple[str, Path | None]:
    """The URI of a version's files, and their directory where it is on this machine."""
    uri = str(client(settings).get_model_version_download_uri(version.name, str(version.version)))
    parts = urlsplit(uri)
    local = Path(unquote(parts.path) if parts.scheme else uri) if parts.scheme in ("", "file") else None
    return uri, local


def _unknown(settings: Settings, reference: str, name: str) -> RegistryError:
    known = models(settings)
    mine = [v for v in known if v.name == name]
    shown = [f"{v}{''.join(f' @{a}' for a in v.aliases)}" for v in mine[:5]]
    return RegistryError(
        f"model {reference}",
        found=", ".join(shown) or f"models {', '.join(sorted({v.name for v in known})) or '(none)'}",
        expected="NAME, NAME@alias or NAME/version of a registered model",
        remedy="run the recipe until its gate promotes a version" if mine else "run a recipe to register one",
    )
