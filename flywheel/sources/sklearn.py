"""Datasets that come with scikit-learn, read from its installed data files."""

from __future__ import annotations

import gzip
import io
from importlib.util import find_spec
from pathlib import Path

from flywheel.errors import SourceError
from flywheel.recipe_sources import SklearnSource
from flywheel.record import Outcomes, Record, provenance_id
from flywheel.sources.listing import READ, Entry

SIDE, LEVELS = 8, 16
"""Pictures are 8x8 pixels with values from 0 (paper) to 16 (ink)."""


def reader(source: SklearnSource, name: str, root: Path | None) -> DigitsReader:
    """The reader of a source of type `sklearn`; its files are where the package is installed."""
    return DigitsReader(source, name)


class DigitsReader:
    """1,797 handwritten digits (Alpaydin & Kaynak 1998) as grey 8x8 PNGs; ink is white, the label is `0` to `9`."""

    def __init__(self, source: SklearnSource, name: str) -> None:
        self.source, self.name = source, name
        self.file = _data_directory() / f"{source.dataset}.csv.gz"

    def entries(self) -> list[Entry]:
        if not self.file.is_file():
            raise SourceError(
                f"dataset {self.source.dataset} of scikit-learn",
                found="no such file in the installed package",
                expected=f"sklearn/datasets/data/{self.file.name}",
                remedy="install scikit-learn again",
            )
        return [Entry(self.file, self.file.name, READ)]

    def read(self, entry: Entry) -> Outcomes:
        with gzip.open(entry.path, "rt", encoding="ascii") as lines:
            for number, line in enumerate(lines):
                *pixels, label = (int(float(value)) for value in line.split(","))
                png = _png(pixels)
                yield Record(
                    id=provenance_id(self.name, str(number), png),
                    image=png,
                    label=str(label),
                    origin={
                        "source": self.name,
                        "path": self.file.name,
                        "license": self.source.license,
                        "size": len(png),
                        "group": str(number),
                    },
                )


def _data_directory() -> Path:
    """Where scikit-learn keeps its data, found without the second that importing it takes."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            "a source of type sklearn",
            found="scikit-learn is not installed",
            expected="the package scikit-learn",
            remedy="run `pip install -c constraints.txt scikit-learn`",
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def _png(pixels: list[int]) -> bytes:
    from PIL import Image

    grey = bytes(round(value * 255 / LEVELS) for value in pixels)
    buffer = io.BytesIO()
    Image.frombytes("L", (SIDE, SIDE), grey).save(buffer, format="PNG")
    return buffer.getvalue()
