"""MLflow as the registry: versions of a model, their files, and the aliases that say which one is served.

versions.py      what a version is, and the names that it is found by
registration.py  a bundle and its papers → a version
seals.py         that files are those which were registered: manifest, seal, signature
promotion.py     aliases move: promote, rollback, and the history of both
registry.py      this: files of a version, and what the plan asks
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import seals
from infra.errors import RegistryError
from infra.registration import WEIGHTS, Candidate, register
from infra.settings import Settings
from infra.tracking import client
from infra.versions import CHAMPION, SEAL, Version, challenged, holder, models, place, resolve

__all__ = ["WEIGHTS", "Candidate", "Registered", "Version", "fetch", "models", "read", "register", "resolve"]


def set_alias(settings: Settings, name: str, alias: str, version: int) -> None:
    """Move an alias, and nothing else: `infra.promotion` also verifies, and keeps the history. Raises RegistryError."""
    client(settings).set_registered_model_alias(name, alias, str(resolve(settings, f"{name}/{version}").version))


def fetch(settings: Settings, version: Version, into: Path) -> Path:
    """The verified directory of a version: where it lies when this machine holds it, else a download made at `into`.

    Every file is compared with MANIFEST.json, and that with the seal in the registry; where FLYWHEEL_VERIFY_KEY names a
    public key, the signature is verified too. A mismatch raises RegistryError.
    """
    uri, local = place(settings, version)
    if local is not None and local.is_dir():
        return seals.verified(settings, local, version)
    if into.is_dir() and seals.fault(into, version.tags.get(SEAL)) is None:
        return seals.signed(settings, into, version)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as scratch:
        ready = seals.verified(settings, _download(settings, uri, Path(scratch, "files")), version)
        shutil.rmtree(into, ignore_errors=True)
        ready.rename(into)
    return into


def read(settings: Settings, version: Version, names: Iterable[str]) -> dict[str, bytes]:
    """Some small files at the root of a version, each compared with the manifest, and that with the seal.

    Names that the version does not hold are left out: older ones hold less. Raises RegistryError.
    """
    uri, local = place(settings, version)
    with tempfile.TemporaryDirectory() as scratch:

        def content(name: str) -> bytes:
            file = local / name if local is not None else _download(settings, f"{uri}/{name}", Path(scratch, name))
            return file.read_bytes() if file.is_file() else b""

        expected = seals.listed(content(seals.MANIFEST), version)
        return {n: seals.as_listed(n, content(n), expected, version) for n in names if n in expected}


@dataclass(frozen=True)
class Registered:
    """What the plan asks of the registry."""

    settings: Settings

    @property
    def uri(self) -> str:
        return self.settings.tracking_uri

    def fault(self, registered: Mapping[str, Any]) -> str:
        """Empty while the version is there, its files are sound, and the alias that it was given is still its own.

        Where a person has moved the alias since, the step `register` is done again: it says what the version is now,
        and never takes back what the person has done (see `promotion.barred`).
        """
        name, number, alias = registered["name"], registered["version"], registered["alias"]
        if self._absent():
            return "registry: its database is gone"
        try:
            version = resolve(self.settings, f"{name}/{number}")
        except RegistryError:
            return f"registry: version {number} is gone"
        held = holder(self.settings, name, alias)
        if held is None or held.version != number:
            if CHAMPION in version.aliases:
                return f"registry: version {number} is @{CHAMPION} by now"
            return f"registry: @{alias} is {f'version {held.version}' if held else 'gone'}"
        return "" if seals.sound(self.settings, version) else f"registry: the files of version {number} are damaged"

    def rival(self, name: str, weights: str) -> str:
        """The version that weights with this fingerprint challenge (see `versions.challenged`): its number, a space and
        its seal, which tells it from the version of that number in another registry. Empty for none."""
        champion = None if self._absent() else holder(self.settings, name, CHAMPION)
        rival = challenged(self.settings, champion, weights)
        return f"{rival.version} {rival.tags.get(SEAL, '')}".strip() if rival else ""

    def _absent(self) -> bool:
        """Whether there is no database yet. None is made, and MLflow is not imported, to find out."""
        return self.uri.startswith("sqlite:///") and not Path(self.uri.removeprefix("sqlite:///")).exists()


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
