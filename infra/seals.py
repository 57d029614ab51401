"""Seals: that the files of a version are those that were registered, and by whom.

    MANIFEST.json   {"files": {relative path: sha256}} of every other file; its sha256 is a tag, the seal
    model.sig       where FLYWHEEL_SIGNING_KEY names a private key: a signature over every other file

The signature is sigstore's model-signing with a key pair, so that `model_signing verify key` can check it as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from infra.errors import RegistryError, SettingsError
from infra.settings import Settings
from infra.versions import SEAL, Version, place

MANIFEST, SIGNED = "MANIFEST.json", "model.sig"


def write(directory: Path) -> str:
    """Write MANIFEST.json over everything in a directory. Returns the sha256 of it, the seal."""
    manifest = json.dumps({"files": dict(sorted(digests(directory).items()))}, indent=1).encode()
    (directory / MANIFEST).write_bytes(manifest)
    return hashlib.sha256(manifest).hexdigest()


def digests(directory: Path) -> dict[str, str]:
    """Relative path → sha256 of every file, manifest and signature left out."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name not in (MANIFEST, SIGNED):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def listed(manifest: bytes, version: Version) -> Mapping[str, str]:
    """The files that a manifest lists. Raises RegistryError where it is not the one of the seal."""
    expected, wrong = _expected(manifest, version.tags.get(SEAL))
    if wrong:
        _refuse(version, wrong)
    return expected


def as_listed(name: str, content: bytes, expected: Mapping[str, str], version: Version) -> bytes:
    """A file's content, where it is as the manifest lists it. Raises RegistryError."""
    if hashlib.sha256(content).hexdigest() != expected[name]:
        _refuse(version, f"{name} changed or missing")
    return content


def verified(settings: Settings, directory: Path, version: Version) -> Path:
    """A directory whose every file is as it was registered, and signed if that is asked for. Raises RegistryError."""
    if wrong := fault(directory, version.tags.get(SEAL)):
        _refuse(version, f"{wrong} in {directory}")
    return signed(settings, directory, version)


def fault(directory: Path, seal: str | None) -> str | None:
    """What is wrong with a directory, or None: a changed manifest, a missing, changed or added file, or a link."""
    try:
        manifest = (directory / MANIFEST).read_bytes()
    except OSError:
        return f"no readable {MANIFEST}"
    expected, wrong = _expected(manifest, seal)
    if wrong:
        return wrong
    if links := [path.name for path in directory.rglob("*") if path.is_symlink()]:
        return f"a link {links[0]}"
    unlike = sorted({*expected.items()} ^ {*digests(directory).items()})
    return f"{unlike[0][0]} changed, missing or added" if unlike else None


def sound(settings: Settings, version: Version) -> bool:
    """Whether the files are as they were registered; those on another machine are verified when they are fetched."""
    _, local = place(settings, version)
    return local is None or fault(local, version.tags.get(SEAL)) is None


# ---------------------------------------------------------------- signatures


def sign(settings: Settings, directory: Path) -> str:
    """Write model.sig with the key of FLYWHEEL_SIGNING_KEY; its sha256, or nothing where no key is set.

    Links to files are followed: what they lead to is what is uploaded. Raises SettingsError for a key that cannot be
    used.
    """
    if settings.signing_key is None:
        return ""
    signing: Any = _model_signing("FLYWHEEL_SIGNING_KEY").signing
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=settings.signing_key)
        config.set_hashing_config(_hashing()).sign(directory, directory / SIGNED)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            "environment variable FLYWHEEL_SIGNING_KEY",
            found=f"{settings.signing_key}: {error}",
            expected="a private key of an elliptic curve, PEM, without a password",
            remedy="make one with `openssl ecparam -name prime256v1 -genkey -noout`",
        ) from error
    return hashlib.sha256((directory / SIGNED).read_bytes()).hexdigest()


def signed(settings: Settings, directory: Path, version: Version) -> Path:
    """The directory, where its signature is by the key of FLYWHEEL_VERIFY_KEY or none is asked for.

    Raises RegistryError for one that is not signed, or signed otherwise.
    """
    if settings.verify_key is None:
        return directory
    if not settings.verify_key.is_file():
        raise SettingsError(
            "environment variable FLYWHEEL_VERIFY_KEY", found=str(settings.verify_key), expected="a public key, PEM"
        )
    if not (directory / SIGNED).is_file():
        _refuse(version, f"no signature {SIGNED}, and FLYWHEEL_VERIFY_KEY asks for one")
    verifying: Any = _model_signing("FLYWHEEL_VERIFY_KEY").verifying
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=settings.verify_key)
        config.set_hashing_config(_hashing()).verify(directory, directory / SIGNED)
    except Exception as error:  # the library tells every kind of wrong signature by another one
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        _refuse(version, f"a signature that {settings.verify_key} does not confirm: {why}")
    return directory


def _hashing() -> Any:
    """Every file but the signature; links are followed when a directory of links is signed."""
    hashing: Any = _model_signing("FLYWHEEL_SIGNING_KEY").hashing
    return hashing.Config().set_ignored_paths(paths=[SIGNED], ignore_git_paths=False).set_allow_symlinks(True)


def _model_signing(variable: str) -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise SettingsError(
            f"environment variable {variable}",
            found=f"set, and {error.name} is not installed",
            expected="the packages of the extra signing",
            remedy="pip install -c constraints.txt 'flywheel-mlops[signing]'",
        ) from error
    return model_signing


# ---------------------------------------------------------------- helpers


def _expected(manifest: bytes, seal: str | None) -> tuple[Mapping[str, str], str]:
    """What a manifest lists, and what is wrong with it."""
    try:
        files: Mapping[str, str] = dict(json.loads(manifest)["files"])
    except (ValueError, KeyError, TypeError):
        return {}, f"no readable {MANIFEST}"
    right = hashlib.sha256(manifest).hexdigest() == seal
    return files, "" if right else f"a {MANIFEST} that is not the registered one"


def _refuse(version: Version, found: str) -> NoReturn:
    raise RegistryError(
        f"files of model {version}",
        found=found,
        expected="the files that were registered, byte for byte",
        remedy="serve another version, or run the recipe again to register a sound one",
    )
