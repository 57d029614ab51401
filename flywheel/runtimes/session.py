"""Opening an ONNX file for inference: threads, provider, no telemetry."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any


def open_session(file: Path, *, gpu: bool) -> Any:
    """An onnxruntime.InferenceSession on one thread for each core that this process may use.

    `gpu` uses CUDA where there is a driver; operators that CUDA lacks then run on the CPU. Raises onnxruntime's own
    errors for a file that is no model or that names external data outside its directory.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library loads
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = 3
    providers = ["CUDAExecutionProvider"] if gpu and _cuda_driver() else []
    return ort.InferenceSession(file, options, providers=[*providers, "CPUExecutionProvider"])


def cores() -> int:
    """Cores that this process may use; fewer than the machine has inside a container or under taskset."""
    return len(os.sched_getaffinity(0))


@cache
def _cuda_driver() -> bool:
    """Whether an NVIDIA driver is installed. onnxruntime-gpu lists CUDA even without one, and then logs errors."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
