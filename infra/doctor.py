"""`flywheel doctor`: what on this machine would make a run fail or slow, each finding with its one-line fix."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal

from infra import devices, pools, prefect_server
from infra.errors import InfraError
from infra.settings import Settings

GIB = 1024**3
DISK_NEEDED, MEMORY_NEEDED = 5 * GIB, 6 * GIB


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    level: Literal["ok", "warning", "error"]
    thing: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.thing:<22} {self.found}"
        return f"{line}\n{'':<32}fix: {self.fix}" if self.fix else line

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """All findings, in the order in which one would mend them."""
    settings = Settings.load()
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _interpreter,
        _pins,
        _runtimes,
        _compiler,
        _store,
        _disk,
        _memory,
        _ports,
        _accelerator,
        _devices,
        _workers,
    )
    return [finding for check in checks for finding in check(settings)]


def _interpreter(settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    fix = "" if fits else "make a new environment: make PYTHON=python3.11 run"
    yield Finding("ok" if fits else "error", "python", version, fix)


def _pins(settings: Settings) -> Iterator[Finding]:
    """Versions that are known to break Prefect 3.8.8: the server fails at import, or schedules never fire."""
    for name, below in (("fastapi", (0, 151)), ("sqlalchemy", (2, 1))):
        version = _version(name)
        if version is None:
            yield Finding("error", name, "not installed", "pip install -c constraints.txt -e .")
        elif tuple(int(n) for n in re.findall(r"\d+", version)[:2]) >= below:
            limit = ".".join(map(str, below))
            fix = f"pip install -c constraints.txt '{name}<{limit}'"
            yield Finding("error", name, f"{version}, which Prefect cannot use", fix)
        else:
            yield Finding("ok", name, version)


def _runtimes(settings: Settings) -> Iterator[Finding]:
    """Two onnxruntimes overwrite each other silently, and CUDA vanishes."""
    for good, bad in (
        ("onnxruntime-gpu", "onnxruntime"),
        ("onnxruntime-genai-cuda", "onnxruntime-genai"),
    ):
        if _version(bad):
            fix = f"pip uninstall -y {bad} {good} && pip install -c constraints.txt {good}"
            yield Finding("error", bad, f"installed beside or instead of {good}", fix)
        elif version := _version(good):
            yield Finding("ok", good, version)
        else:
            yield Finding("error", good, "not installed", "pip install -c constraints.txt -e .")


def _compiler(settings: Settings) -> Iterator[Finding]:
    found = next((c for c in ("g++", "clang++") if shutil.which(c)), None)
    if found:
        yield Finding("ok", "compiler", found)
    else:
        yield Finding(
            "warning",
            "compiler",
            "no C++ compiler: training on CPU runs without torch.compile, two to three times slower",
            "install g++ (Debian: apt-get install g++)",
        )


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=settings.home):
            yield Finding("ok", "store", str(settings.home))
    except OSError as error:
        yield Finding(
            "error", "store", f"{settings.home}: {error.strerror}", "set FLYWHEEL_HOME to a writable directory"
        )


def _disk(settings: Settings) -> Iterator[Finding]:
    place = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    free = shutil.disk_usage(place).free
    fix = "" if free >= DISK_NEEDED else "free some space, or set FLYWHEEL_HOME to another disk"
    yield Finding("warning" if fix else "ok", "disk", f"{free / GIB:.0f} GiB free", fix)


def _memory(settings: Settings) -> Iterator[Finding]:
    import psutil

    free = psutil.virtual_memory().available
    fix = "" if free >= MEMORY_NEEDED else "close other programs, or lower train.per_device_train_batch_size"
    yield Finding("warning" if fix else "ok", "memory", f"{free / GIB:.0f} GiB available", fix)


def _ports(settings: Settings) -> Iterator[Finding]:
    for name, port in (
        ("PREFECT", settings.prefect_port),
        ("MLFLOW", settings.mlflow_port),
        ("SERVE", settings.serve_port),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                yield Finding("ok", f"port {port}", "free")
            except OSError:
                fix = f"if it is not `flywheel up`, stop it or set FLYWHEEL_{name}_PORT"
                yield Finding("warning", f"port {port}", "in use", fix)


def _accelerator(settings: Settings) -> Iterator[Finding]:
    """A GPU is used where nvidia-smi, torch and onnxruntime all see it."""
    if not shutil.which("nvidia-smi"):
        yield Finding("ok", "gpu", "none; everything runs on the CPU")
        return
    if find_spec("torch") is None or find_spec("onnxruntime") is None:
        return
    import onnxruntime
    import torch

    if not torch.cuda.is_available():
        fix = "install the CUDA build of torch that constraints.txt names, and a driver for CUDA 13"
        yield Finding("warning", "gpu", "nvidia-smi is here, but torch sees no GPU", fix)
    elif "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        fix = "pip install --force-reinstall -c constraints.txt onnxruntime-gpu"
        yield Finding("warning", "gpu", "onnxruntime was built without CUDA", fix)
    else:
        yield Finding("ok", "gpu", torch.cuda.get_device_name(0))


def _devices(settings: Settings) -> Iterator[Finding]:
    """Every GPU that may be leased, and who holds it."""
    try:
        found = devices.devices(settings)
    except InfraError as error:
        yield Finding("warning", "nvidia-smi", " ".join(error.found.split()), error.remedy)
        return
    held = devices.Book(settings).holders()
    for one in found:
        holder = f"; held by {held[one.uuid].holder}" if one.uuid in held else ""
        memory = f"{one.memory_free / GIB:.0f} of {one.memory_total / GIB:.0f} GiB free"
        yield Finding("ok", f"gpu {one.index}", f"{one.name}, {memory}{holder}")


def _workers(settings: Settings) -> Iterator[Finding]:
    """What the workers of a running Prefect server say of their machines."""
    if api := prefect_server.running(settings):
        for pool in pools.POOLS:
            for one in pools.adverts(api, pool):
                fix = "" if one.online else f"start it again: flywheel worker {pool}"
                yield Finding("warning" if fix else "ok", f"worker of {pool}", str(one), fix)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
