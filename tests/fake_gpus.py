"""A machine with GPUs, as far as one can tell from the outside: an `nvidia-smi` on the PATH."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = """#!{python}
import sys
assert sys.argv[1:] == ["--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
sys.stdout.write({output!r})
sys.exit({code})
"""


def uuid(index: int) -> str:
    return f"GPU-{index}2345678-abcd-0000-0000-00000000000{index}"


def nvidia_smi(folder: Path, count: int, *, output: str | None = None, code: int = 0) -> Path:
    """Write one that lists `count` GPUs, the later ones with more free memory; returns the folder for the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{n}, {uuid(n)}, NVIDIA H200, 143771, {1000 + n}\n" for n in range(count)]
    script = folder / "nvidia-smi"
    script.write_text(
        SCRIPT.format(python=sys.executable, output="".join(lines) if output is None else output, code=code)
    )
    script.chmod(0o755)
    return folder
