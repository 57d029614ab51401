"""The gate: measured metrics and the objective's thresholds → a decision with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flywheel.recipe import Objective, Threshold


@dataclass(frozen=True)
class Reason:
    """One condition, whether it holds, and the figures behind it."""

    metric: str
    holds: bool
    text: str


@dataclass(frozen=True)
class Decision:
    """Promote only when every condition holds."""

    promote: bool
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide(objective: Objective, metrics: Mapping[str, Mapping[str, Any]]) -> Decision:
    """Compare each threshold with its metric (`value`, `low`, `high`, `better`, `baseline`, `before`).

    A metric that was not measured fails its threshold. An objective without thresholds promotes nothing.
    """
    reasons: list[Reason] = []
    for name, threshold in objective.thresholds.items():
        if name in metrics:
            reasons += _conditions(name, threshold, metrics[name])
        else:
            reasons.append(Reason(name, False, f"{name} was not measured"))
    if not reasons:
        reasons.append(Reason(objective.metric, False, "the objective sets no threshold"))
    return Decision(all(r.holds for r in reasons), tuple(reasons))


def _conditions(name: str, threshold: Threshold, metric: Mapping[str, Any]) -> list[Reason]:
    reasons, value = [], metric["value"]
    if threshold.min is not None:
        holds = value >= threshold.min
        reasons.append(Reason(name, holds, f"{name} {value:.4g} {_sign(holds, '≥', '<')} {threshold.min:g}"))
    if threshold.max is not None:
        holds = value <= threshold.max
        reasons.append(Reason(name, holds, f"{name} {value:.4g} {_sign(holds, '≤', '>')} {threshold.max:g}"))
    if threshold.beats is not None:
        reasons.append(_beats(name, threshold.beats, metric))
    return reasons


def _beats(name: str, other: str, metric: Mapping[str, Any]) -> Reason:
    """The whole interval must lie on the better side of the other value."""
    rival = metric[other]
    if rival is None:
        return Reason(name, False, f"{name} has no {other} to beat")
    low, high = metric["low"], metric["high"]
    holds = high < rival if metric["better"] == "lower" else low > rival
    verb = "beats" if holds else "does not clearly beat"
    figures = f"{metric['value']:.4g} [{low:.4g}, {high:.4g}]"
    return Reason(name, holds, f"{name} {figures} {verb} {other} {rival:.4g} ({metric['better']} is better)")


def _sign(holds: bool, yes: str, no: str) -> str:
    return yes if holds else no
