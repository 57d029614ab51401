"""What a benchmark ran on."""

from __future__ import annotations

import os
import sys
from typing import Any

from flywheel.hardware import cpu


def machine() -> dict[str, Any]:
    """Processor, number of cores and version of Python, for the `machine` of a benchmark's JSON."""
    return {"cpu": cpu(), "cores": os.cpu_count(), "python": sys.version.split()[0]}
