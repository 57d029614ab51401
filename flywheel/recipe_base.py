"""What all parts of a recipe are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, JsonValue

Operation = str | dict[str, dict[str, JsonValue]]
"""One processing step: a bare name, or `name: {argument: value}`."""


class Section(BaseModel):
    """A closed, immutable part of a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True, allow_inf_nan=False
    )
