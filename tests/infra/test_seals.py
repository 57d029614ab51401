"""Signatures: with a key everything is signed, and with a public key only what it confirms is fetched or promoted."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra import registry
from infra.errors import RegistryError, SettingsError
from infra.promotion import promote
from infra.registry import Candidate, Version
from infra.seals import SIGNED
from infra.settings import Settings
from infra.tracking import lifecycle_run

pytest.importorskip("model_signing", reason="the extra signing is not installed")


def keys(directory: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem, paths = serialization.Encoding.PEM, (directory / f"{name}.key", directory / f"{name}.pub")
    paths[0].write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    paths[1].write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return paths


@pytest.fixture
def signing(local, tmp_path) -> Settings:
    private, public = keys(tmp_path, "ours")
    return replace(local, signing_key=private, verify_key=public)


def registered(settings: Settings, root: Path, fingerprint: str = "f1") -> Version:
    for name in ("bundle/fp32/model.onnx", "weights/model.safetensors", "papers/recipe.yaml", "bundle/.gitignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    with lifecycle_run(settings, "signed", "0123", tags={}, params={}) as run:
        files = {"weights": root / "weights", "papers": root / "papers"}
        made = Candidate("signed", root / "bundle", run.id, fingerprint, "text", "card", **files)
        return registry.register(settings, made)


def test_a_signed_version_is_fetched_and_promoted(signing, tmp_path):
    version = registered(signing, tmp_path)
    directory = registry.fetch(signing, version, tmp_path / "unused")
    assert (directory / SIGNED).is_file()
    assert str(tmp_path) not in (directory / SIGNED).read_text()
    assert promote(signing, "signed", 1, by="ann", reason="").version == 1
    assert registered(signing, tmp_path).version == 1


def test_others_can_check_it_with_the_ordinary_command(signing, tmp_path):
    directory = registry.fetch(signing, registered(signing, tmp_path), tmp_path / "unused")
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(directory), "--no-ignore-git-paths"]
    options = ["--signature", str(directory / SIGNED), "--public_key", str(signing.verify_key)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_signed_by_the_key_is_refused(signing, tmp_path):
    _, other = keys(tmp_path, "other")
    version = registered(signing, tmp_path)
    with pytest.raises(RegistryError, match=r"other\.pub does not confirm"):
        registry.fetch(replace(signing, verify_key=other), version, tmp_path / "unused")
    with pytest.raises(RegistryError, match="does not confirm"):
        promote(replace(signing, verify_key=other), "signed", 1, by="ann", reason="")
    (registry.fetch(signing, version, tmp_path / "unused") / SIGNED).unlink()
    with pytest.raises(RegistryError, match="no signature"):
        registry.fetch(signing, version, tmp_path / "unused")
    assert registry.fetch(replace(signing, verify_key=None), version, tmp_path / "unused").is_dir()


def test_a_manifest_that_was_written_anew_is_refused_by_the_signature(signing, tmp_path):
    """Whoever can change files and tags cannot sign."""
    from infra import seals
    from infra.tracking import client
    from infra.versions import SEAL

    directory = registry.fetch(signing, registered(signing, tmp_path), tmp_path / "unused")
    (directory / "fp32" / "model.onnx").write_text("other")
    client(signing).set_model_version_tag("signed", "1", SEAL, seals.write(directory))
    forged = registry.resolve(signing, "signed/1")
    assert registry.fetch(replace(signing, verify_key=None), forged, tmp_path / "unused") == directory
    with pytest.raises(RegistryError, match="does not confirm"):
        registry.fetch(signing, forged, tmp_path / "unused")


def test_an_unsigned_version_is_registered_anew_once_there_is_a_key(signing, tmp_path):
    assert registered(replace(signing, signing_key=None), tmp_path).version == 1
    with pytest.raises(RegistryError, match="no signature"):
        promote(signing, "signed", 1, by="ann", reason="")
    assert registered(signing, tmp_path).version == 2
    assert promote(signing, "signed", 2, by="ann", reason="").version == 2


def test_a_signed_version_comes_through_a_server(server, tmp_path):
    private, public = keys(tmp_path, "ours")
    settings = replace(server, signing_key=private, verify_key=public)
    directory = registry.fetch(settings, registered(settings, tmp_path), tmp_path / "cache")
    assert (directory / "weights" / "model.safetensors").read_text() == "weights/model.safetensors"
    assert registry.read(settings, registry.resolve(settings, "signed/1"), ["recipe.yaml"]) == {
        "recipe.yaml": b"papers/recipe.yaml"
    }


def test_a_key_that_is_none_is_refused(signing, tmp_path):
    (tmp_path / "bad.key").write_text("no key")
    with pytest.raises(SettingsError, match="FLYWHEEL_SIGNING_KEY"):
        registered(replace(signing, signing_key=tmp_path / "bad.key"), tmp_path)
    version = registered(signing, tmp_path)
    with pytest.raises(SettingsError, match="FLYWHEEL_VERIFY_KEY"):
        registry.fetch(replace(signing, verify_key=tmp_path / "absent.pub"), version, tmp_path / "unused")
