"""Reads a local dataset directory in a confined child process. `datasets` is imported here before the rights of the
process are taken away, because it loads libraries by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from flywheel.errors import SourceError
from flywheel.recipe_sources import HuggingFaceSource
from flywheel.sources import huggingface


def acquire(argument: Mapping[str, Any]) -> dict[str, Any]:
    """As `huggingface.acquire`; a SourceError becomes the value `refused` with its parts."""
    datasets.disable_progress_bars()
    datasets.config.TORCH_AVAILABLE = False  # or it would be imported, gigabytes of it
    source = HuggingFaceSource.model_validate(argument["source"])
    try:
        return huggingface.read(source, Path(argument["into"]), {})
    except SourceError as error:
        return {"refused": {name: getattr(error, name) for name in ("thing", "found", "expected", "remedy")}}
