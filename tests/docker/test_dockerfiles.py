"""Images are not built here; what they copy, install and start is checked against what is in the repository."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.settings import quiet_environment

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
IMPORT_WITHOUT = """
import importlib, sys
refused = set(sys.argv[2].split(","))
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)
sys.meta_path.insert(0, Refuse())
for name in sys.argv[1].split(","):
    importlib.import_module(name)
"""


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", dockerfile.read_text())
    lines = [line.partition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in lines]


def copies(dockerfile: Path) -> list[tuple[list[str], str]]:
    parts = [rest.split() for word, rest in instructions(dockerfile) if word == "COPY"]
    return [(sources, target) for *sources, target in parts]


def pip_installs(dockerfile: Path) -> list[list[str]]:
    runs = " && ".join(rest for word, rest in instructions(dockerfile) if word == "RUN")
    return [shlex.split(part) for part in runs.split("&&") if "pip install" in part]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def not_installed_with(names: list[str]) -> set[str]:
    """Import names of the packages here that neither are among these nor required by them."""
    waiting, found = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requirements = map(Requirement, metadata.requires(name) or ())
        except metadata.PackageNotFoundError:
            continue
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    owners = metadata.packages_distributions().items()
    return {top for top, names in owners if not found & set(map(canonicalize_name, names))}


def layout(dockerfile: Path, into: Path) -> set[str]:
    """Make the image's working directory; returns the project's packages in it."""
    for sources, target in copies(dockerfile):
        for source in sources:
            origin, to = ROOT / source, into / target
            if origin.is_dir():
                shutil.copytree(origin, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                to = to / origin.name if target.endswith("/") else to
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(origin, to)
    return {path.name for path in into.iterdir() if path.is_dir()}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda f: f.name)
def test_what_is_copied_exists_and_is_sent_to_the_builder(dockerfile):
    sent = (ROOT / ".dockerignore").read_text().split()
    sources = [source for found, _ in copies(dockerfile) for source in found]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.partition('/')[0]}" in sent


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda f: f.name)
def test_every_pip_install_is_constrained_to_pinned_versions(dockerfile):
    installs = pip_installs(dockerfile)
    assert installs
    for words in installs:
        assert words[words.index("-c") + 1] == "constraints.txt"
        packages = [w for w in words[words.index("install") + 1 :] if not w.startswith("-") and w != "constraints.txt"]
        assert packages == ["."] or {canonicalize_name(p) for p in packages} <= pinned().keys()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda f: f.name)
def test_images_do_not_run_as_root(dockerfile):
    words = [word for word, _ in instructions(dockerfile)]
    assert "USER" in words
    assert words.index("USER") < max(words.index(w) for w in ("CMD", "ENTRYPOINT") if w in words)


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_a_worker_holds_every_package_of_the_project(name, tmp_path):
    packages = {"flows", "tasks", "flywheel", "infra", "serving", "mlflow_server", "recipes"}
    assert layout(DOCKER / f"Dockerfile.{name}", tmp_path) == packages


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        (
            "serving",
            "serving.__main__,flywheel.runtimes.decoder,flywheel.runtimes.diffusion,onnxruntime,tokenizers.decoders",
        ),
        ("mlflow", "mlflow_server.__main__,infra.tracking,mlflow.server,sqlalchemy"),
    ],
)
def test_the_packages_of_a_small_image_suffice(name, modules, tmp_path):
    """Imported from what is copied, with no package at hand that the image lacks."""
    dockerfile = DOCKER / f"Dockerfile.{name}"
    own = layout(dockerfile, tmp_path)
    (words,) = pip_installs(dockerfile)
    refused = not_installed_with(words[words.index("constraints.txt") + 1 :]) - own
    assert {"torch", "transformers", "prefect", "great_expectations", "flows", "tasks"} <= refused
    command = [sys.executable, "-c", IMPORT_WITHOUT, modules, ",".join(refused)]
    environment = {**os.environ, **quiet_environment(), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_gpu_image_says_that_it_is_untried():
    assert "Not run on a GPU yet" in (DOCKER / "Dockerfile.worker-gpu").read_text()


def test_compose_publishes_on_loopback_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    shared = {name for name, service in SERVICES.items() if service.get("network_mode") == "host"}
    assert shared == SERVICES.keys() - {"postgres"}
    assert "0.0.0.0" not in (DOCKER / "compose.yaml").read_text()


def test_compose_names_files_services_and_conditions_that_exist():
    for service in SERVICES.values():
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for other, condition in service.get("depends_on", {}).items():
            healthy = condition["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[other] or not healthy
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith("$") or (DOCKER / source).is_file()
    built = {s["image"] for s in SERVICES.values() if "build" in s and "image" in s}
    assert {s["image"] for s in SERVICES.values() if "build" not in s} - {"postgres:17"} <= built


def commands() -> list[list[str]]:
    """What images and services start, a shell's `a && b` taken apart."""
    started = [s["command"] for s in SERVICES.values() if "command" in s]
    for dockerfile in DOCKERFILES:
        started += [yaml.safe_load(rest) for word, rest in instructions(dockerfile) if word in ("CMD", "ENTRYPOINT")]
    scripts = [words[2] for words in started if words[0] == "sh"]
    parts = [shlex.split(part.strip().removeprefix("exec ")) for script in scripts for part in script.split("&&")]
    return [*parts, *(words for words in started if words[0] not in ("sh", "--bundle"))]


def test_what_is_started_exists():
    for words in commands():
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(f"{words[2]}.__main__")
        elif words[0] == "python":
            compile(words[2], "-c", "exec")
        else:
            assert words[0] in ("prefect", "flywheel")
            assert Path(sys.executable).with_name(words[0]).exists()


def test_the_quiet_variables_are_those_of_the_settings():
    lines = [line for line in (DOCKER / "quiet.env").read_text().splitlines() if not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == quiet_environment()
