"""What decides the bits of a training beside its inputs: the class of hardware, and the build of torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLASS = ("cpu", "capability", "cores", "devices", "torch")
"""What must be the same before a training is tried again. `threads` and `world_size` are set by how it is started."""


def hardware() -> dict[str, Any]:
    """{cpu, capability, cores, threads, devices, world_size, torch} of this process, as plain JSON."""
    import torch

    able = torch.cpu.get_capabilities()
    products = [name for name in ("avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "bf16") if able.get(name)]
    spread = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "cpu": cpu(),
        "capability": " ".join([torch.backends.cpu.get_cpu_capability(), *products]),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "world_size": torch.distributed.get_world_size() if spread else 1,
        "torch": torch.__version__,
    }


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two classes of hardware, in words."""
    return [
        f"hardware {name}: {_said(then.get(name))} → {_said(now.get(name))}"
        for name in CLASS
        if then.get(name) != now.get(name)
    ]


def cpu() -> str:
    """The model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def free_memory() -> int:
    """Bytes of RAM that this process may take, those that it has included; the limit of its cgroup counts."""
    import psutil

    own = psutil.Process().memory_info().rss
    return int(min([psutil.virtual_memory().available, *_left_in_groups(Path("/sys/fs/cgroup"))])) + int(own)


def _left_in_groups(root: Path) -> list[int]:
    """Bytes that cgroups (version 2, then 1) leave to this process, where they limit it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        version_1 = "memory" in controllers.split(",")
        if controllers and not version_1:
            continue
        base = root / "memory" if version_1 else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version_1 else ("memory.max", "memory.current")
        group = base / path.strip("/")
        for place in (group, *(p for p in group.parents if p.is_relative_to(base))):
            limit, used = (_number(place / name) for name in names)
            if limit is not None and used is not None and limit < 1 << 60:
                found.append(max(0, limit - used))
    return found


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _said(value: Any) -> str:
    if value is None:
        return "not recorded"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
