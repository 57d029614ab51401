"""The kinds of features, and a vectoriser as it lies in its directory."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from flywheel.errors import ArtifactError, RecipeError
from flywheel.features.base import Sample, Vectoriser
from flywheel.recipe_features import Features

KINDS: dict[str, str] = {
    "bag_of_words": "flywheel.features.bag",
    "tfidf": "flywheel.features.bag",
    "word2vec": "flywheel.features.word2vec",
    "embeddings": "flywheel.features.embeddings",
    "image_embeddings": "flywheel.features.pictures",
    "image_pixels": "flywheel.features.pictures",
    "log_mel": "flywheel.features.sound",
}
"""`type` of the recipe to the module that has `fit` and `load`."""
_FILE = "vectoriser.json"


def fit(config: Features, rows: Path) -> Vectoriser:
    """A vectoriser that learnt from a file of rows. Raises SourceError where it cannot learn, and RecipeError for a
    checkpoint that cannot be opened or a package that is not installed."""
    try:
        found: Vectoriser = _module(config).fit(Sample(rows, config.fit_rows), config)
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise RecipeError(
            f"features of type {config.type}",
            found=f"{package} is not installed",
            expected=f"the package {package}",
            remedy=f"run `pip install -c constraints.txt {package}`",
        ) from error
    return found


def save(vectoriser: Vectoriser, config: Features, directory: Path) -> None:
    """Write the vectoriser and its configuration into a new directory."""
    directory.mkdir(parents=True)
    vectoriser.save(directory)
    (directory / _FILE).write_text(json.dumps(config.model_dump(mode="json"), indent=1, sort_keys=True))


def load(directory: Path) -> Vectoriser:
    """The vectoriser of a directory. Raises ArtifactError where there is none."""
    try:
        config: Features = TypeAdapter(Features).validate_json((directory / _FILE).read_bytes())
        found: Vectoriser = _module(config).load(directory, config)
    except (OSError, ValidationError, ValueError) as error:
        raise ArtifactError(
            f"vectoriser {directory}",
            found=str(error).splitlines()[0],
            expected=f"what the features step wrote: {_FILE} and the arrays beside it",
            remedy="run the features step again",
        ) from error
    return found


def _module(config: Features) -> Any:
    return import_module(KINDS[config.type])
