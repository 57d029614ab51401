"""A bundle is the directory that is served: manifest.json, one folder for each accepted precision, and side files.

manifest.json   {"runtime": "decoder", "default": "int8", "precisions": ["fp32", "int8"], ...}
fp32/*.onnx  int8/*.onnx  tokenizer.json ...
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from flywheel.errors import ServingError
from flywheel.runtimes.base import Runtime

RUNTIMES = {
    "decoder": "flywheel.runtimes.decoder:Decoder",
    "diffusion": "flywheel.runtimes.diffusion:Diffusion",
    "seq2seq": "flywheel.runtimes.seq2seq:Seq2Seq",
    "masked": "flywheel.runtimes.single_pass:Masked",
    "reward": "flywheel.runtimes.single_pass:Reward",
}


def open_bundle(directory: Path, precision: str | None = None) -> Runtime:
    """The runtime named by the manifest, on `precision` or else on the manifest's default.

    Every runtime is constructed as `Runtime(directory, manifest, precision)`. Raises ServingError for a directory that
    is no bundle, for a precision that it does not hold, and for files that stand outside of it as well: onnxruntime
    refuses paths and symbolic links that lead out, and would follow a hard link.
    """
    manifest = _manifest(directory)
    chosen = precision or manifest["default"]
    if chosen not in manifest["precisions"]:
        raise _refused(directory, f"precision {chosen!r}", f"one of {', '.join(manifest['precisions'])}")
    for file in directory.rglob("*"):
        if file.is_symlink() or (file.is_file() and file.stat().st_nlink > 1):
            raise _refused(directory, f"{file.relative_to(directory)} is a link", "files of its own")
    module, _, name = RUNTIMES[manifest["runtime"]].partition(":")
    runtime: Runtime = getattr(import_module(module), name)(directory, manifest, chosen)
    return runtime


def _manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())
        known = manifest["runtime"] in RUNTIMES and manifest["default"] in manifest["precisions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(directory, f"manifest.json: {error!r}", "a manifest.json with runtime and precisions") from error
    if not known:
        raise _refused(directory, f"runtime {manifest['runtime']!r}", f"one of {', '.join(RUNTIMES)}")
    return manifest


def _refused(directory: Path, found: str, expected: str) -> ServingError:
    return ServingError(
        f"model bundle {directory}", found=found, expected=expected, remedy="Export or fetch the model again."
    )
