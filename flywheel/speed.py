"""How fast this machine multiplies, and how well a training uses that: MFU (Chowdhery et al. 2022), and what is left.

MFU = floating-point operations that the model needs each second / those of plain matrix products on the same device.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.hardware import cpu

if TYPE_CHECKING:
    import torch
    from torch import nn

FILE = "peak-flops.json"
SECONDS = 0.4
"""Of measuring one peak."""
SIDE = {"cpu": 1536, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


def peak_flops(device: str, dtype: str, directory: Path) -> float:
    """Floating-point operations a second of matrix products: `device` is `cpu` or `cuda`, `dtype` as torch names it.

    Measured once in under a second and kept in `directory` by processor, number of threads and build of torch.
    """
    import torch

    name = cpu() if device == "cpu" else torch.cuda.get_device_name()
    key = f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {dtype}"
    file = directory / FILE
    known = _read(file)
    if key not in known:
        known |= {key: _measured(torch.device(device), getattr(torch, dtype))}
        _write(file, known)
    return float(known[key])


def flops_per_token(module: nn.Module, length: int) -> float:
    """Operations of training on one token in a row of `length`: 6 for each weight that multiplies, and attention's.

    The formula of PaLM's appendix B, for transformers' decoders; `flywheel.footprint.flops` counts for any module.
    Embeddings that are only looked up do not multiply. 0 for a module that has no layers of attention.
    """
    config: Any = getattr(module, "config", None)
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if layers is None or width is None:
        return 0.0
    heads: Any = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    output = None if heads is None else id(heads.weight)
    looked_up = _lookups(module) - {output}
    weights: int = sum(p.numel() for p in module.parameters() if p.ndim > 1 and id(p) not in looked_up)
    size = getattr(config, "head_dim", None) or width // config.num_attention_heads
    attended: int = layers * config.num_attention_heads * size * length
    return 6.0 * weights + 12.0 * attended


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min` or `2 d 4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def _lookups(module: nn.Module) -> set[int | None]:
    from torch.nn import Embedding

    return {id(part.weight) for part in module.modules() if isinstance(part, Embedding)}


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    """The best of the products that fit into the time: what else the machine does only slows some."""
    import torch

    side = SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, ends = float("inf"), time.monotonic() + SECONDS
    with torch.no_grad():
        torch.mm(left, right)
        while best == float("inf") or time.monotonic() < ends:
            _wait(device)
            started = time.perf_counter()
            torch.mm(left, right)
            _wait(device)
            best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read(file: Path) -> dict[str, float]:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


def _write(file: Path, known: dict[str, float]) -> None:
    """Aside and renamed: several processes may measure at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(handle, "w") as f:
        json.dump(known, f, indent=1, sort_keys=True)
    os.replace(draft, file)
