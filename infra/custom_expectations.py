"""Our own expectations, for the data of generative models: classes of Great Expectations over columns of facts.

Importing this module registers them. Their columns stand in `infra.expectation_names.CUSTOM`.
"""

from __future__ import annotations

from typing import Any

from great_expectations.compatibility.pydantic import Field
from great_expectations.expectations.core.expect_column_mean_to_be_between import ExpectColumnMeanToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet

Result = dict[str, bool | dict[str, Any]]


class _Holds(ExpectColumnValuesToBeInSet):
    """The fact is true for every row."""

    value_set: list[Any] | dict[Any, Any] = Field(default=[True])


class _DoesNotHold(ExpectColumnValuesToBeInSet):
    """The fact is false for every row."""

    value_set: list[Any] | dict[Any, Any] = Field(default=[False])


class _Ratio(ExpectColumnMeanToBeBetween):
    """A share of the rows that have the fact, 0 to 1."""

    metric_dependencies = ("column.value_counts",)

    def _ratio(self, counts: Any) -> float:
        raise NotImplementedError

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> Any:
        found = {"ratio": self._ratio(metrics["column.value_counts"])}
        return self._validate_metric_value_between("ratio", found, runtime_configuration, execution_engine)


class _Shares(ExpectColumnMeanToBeBetween):
    """The share of the rows that each distinct value has, 0 to 1; rows without a value are not counted."""

    metric_dependencies = ("column.value_counts",)

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> Result:
        counts = metrics["column.value_counts"]
        shares = {str(value): int(count) / int(counts.sum()) for value, count in counts.items()}
        judged = {
            value: self._validate_metric_value_between("share", {"share": share}, runtime_configuration)["success"]
            for value, share in shares.items()
        }
        wrong = {value: round(shares[value], 4) for value, met in judged.items() if not met}
        extremes = {"smallest": min(shares.values(), default=None), "largest": max(shares.values(), default=None)}
        return {"success": not wrong, "result": {"observed_value": _first(wrong) or extremes}}


class ExpectTokenLengthToBeBetween(ExpectColumnValuesToBeBetween):
    """Expect the number of tokens of every row to be between two numbers."""


class ExpectLanguageToBeInSet(ExpectColumnValuesToBeInSet):
    """Expect the language of every row to be one of these codes."""


class ExpectTextToBeIntact(ExpectColumnValuesToBeBetween):
    """Expect at most this share of the characters of every row to be U+FFFD, stray controls or mojibake."""

    max_value: float = 0.0


class ExpectRolesToAlternate(_Holds):
    """Expect user and assistant to take turns in every conversation."""


class ExpectPromptToDifferFromCompletion(_Holds):
    """Expect no completion to repeat its prompt."""


class ExpectChosenToDifferFromRejected(_Holds):
    """Expect no chosen answer to equal the rejected one."""


class ExpectImagesToBeIntact(_Holds):
    """Expect every picture to decode to its last pixel."""


class ExpectAudioToBeIntact(_Holds):
    """Expect every recording to decode to its last frame."""


class ExpectNoTrainHeldoutLeakage(_DoesNotHold):
    """Expect no content and no group to stand in both the training and the held-out rows."""


class ExpectDuplicateRatioToBeBetween(_Ratio):
    """Expect the share of rows whose content was there before to be between two numbers."""

    def _ratio(self, counts: Any) -> float:
        return 1 - len(counts) / max(1, int(counts.sum())) if len(counts) else 0.0


class ExpectPiiRatioToBeBetween(_Ratio):
    """Expect the share of rows with personal identifiers to be between two numbers."""

    def _ratio(self, counts: Any) -> float:
        return int(counts.get(True, 0)) / max(1, int(counts.sum()))


class ExpectClassSharesToBeBetween(_Shares):
    """Expect each class to have a share of the rows between two numbers."""


class ExpectGroupSharesToBeBetween(_Shares):
    """Expect each group to have a share of the rows between two numbers."""


def _first(shares: dict[str, float], most: int = 20) -> dict[str, float]:
    """The shares that are named in a report."""
    return dict(list(shares.items())[:most])
