"""The search of a recipe: which keys are searched, over which values, and how (words of Optuna)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from flywheel.recipe_base import Section

_INSIDE = 0.381966
"""Share of a range at which a number stands that is not round."""


class Range(Section):
    """Numbers from `low` to `high`, both included: whole ones where `low` and `high` are whole."""

    low: int | float
    """The least value."""
    high: int | float
    """The greatest value."""
    log: bool = False
    """Draw evenly on a logarithmic scale; for what counts by its order of magnitude, such as a learning rate."""
    step: int | float | None = Field(default=None, gt=0)
    """Distance of the values from each other, counted from `low`. Empty: 1 for whole numbers, else any."""

    @model_validator(mode="after")
    def is_a_range(self) -> Range:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and goes without step")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    @property
    def probes(self) -> tuple[int | float, ...]:
        """Values that show whether the whole range is admitted: both ends, and one between."""
        step = self.step or (1 if self.whole else (self.high - self.low) * _INSIDE)
        return (self.low, self.high, min(self.low + step, self.high))


class Choices(Section):
    """One of several values of any kind."""

    choices: tuple[JsonValue, ...] = Field(min_length=1)
    """The values."""

    @property
    def probes(self) -> tuple[JsonValue, ...]:
        """All of them."""
        return self.choices


def _kind(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or (isinstance(value, dict) and "choices" in value) else "range"


Values = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)]
"""What a key may be: `{low: 1e-4, high: 1e-1, log: true}` or `{choices: [adamw, muon]}`."""


class Tune(Section):
    """A search for better values of some keys, by `flywheel tune` (names of Optuna)."""

    space: dict[str, Values] = Field(min_length=1)
    """Key of this recipe to its values: `train.learning_rate`, or `data.process[2].near_dedup.threshold`."""
    n_trials: int = Field(default=20, ge=1)
    """Trials in all. A larger number later goes on with the same study."""
    metric: str | None = None
    """The metric of the evaluation to be made better. Empty: the objective's."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How values are drawn: `tpe` near those that did well (Bergstra et al. 2011), or `random`."""
    pruner: Literal["asha", "hyperband", "none"] = "asha"
    """What stops trials that fall behind in training: successive halving (Li et al. 2020), Hyperband, or nothing."""
    workers: int = Field(default=1, ge=1)
    """Trials at a time on this machine, each in a process of its own."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds after which no further trial starts, for each call of the command. Empty: no limit."""
