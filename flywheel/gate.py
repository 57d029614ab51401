"""The gate: what was measured, the objective's thresholds and the champion → a decision with reasons.

A version is promoted when every threshold holds, the objective's metric is better than the champion's beyond doubt, and
nothing else that both have measured is worse beyond doubt. What is compared is compared on the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flywheel.comparison import ALPHA, Comparison, holm
from flywheel.recipe import Objective, Threshold

LIMITS = ("contamination", "megabytes", "milliseconds_per_step")
"""What may have thresholds beside metrics: the share of held-out rows that training rows gave away, the size of the
precision that is served, and its time for a step of decoding."""


@dataclass(frozen=True)
class Reason:
    """One condition, whether it holds, and the figures behind it."""

    metric: str
    holds: bool
    text: str


@dataclass(frozen=True)
class Rival:
    """The champion on the same examples."""

    version: int
    comparisons: Sequence[Comparison] = ()
    faults: Mapping[str, str] = field(default_factory=dict)
    """Metric → why it could not be compared; "" → why nothing could."""


@dataclass(frozen=True)
class Decision:
    """Promote only when every condition holds."""

    promote: bool
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide(objective: Objective, metrics: Mapping[str, Mapping[str, Any]], rival: Rival | None = None) -> Decision:
    """Compare each threshold with its metric (`value`, `low`, `high`, `better`, `baseline`, `before`), and the
    challenger with the champion, where there is one.

    A metric that was not measured fails its threshold. Without thresholds and without a champion nothing speaks for a
    version, and it is not promoted.
    """
    reasons: list[Reason] = []
    for name, threshold in objective.thresholds.items():
        if name in metrics:
            reasons += _conditions(name, threshold, metrics[name])
        else:
            reasons.append(Reason(name, False, f"{name} was not measured"))
    if rival is not None:
        reasons += against(objective, rival)
    if not reasons:
        reasons.append(Reason(objective.metric, False, "the objective sets no threshold, and there is no champion"))
    return Decision(all(r.holds for r in reasons), tuple(reasons))


def against(objective: Objective, rival: Rival) -> list[Reason]:
    """The objective's metric must be better than the champion's; no other one may be worse."""
    named = {c.metric: c for c in rival.comparisons if c.metric not in objective.reported}
    faults = {name: why for name, why in rival.faults.items() if name not in objective.reported}
    if objective.metric not in named and not faults:
        faults = {objective.metric: "it has no examples to compare"}
    reasons = []
    if (first := named.pop(objective.metric, None)) is not None:
        reasons.append(_better(first, rival.version, objective.min_effect))
    for name, why in faults.items():
        subject = f"{name} was not" if name else "nothing could be"
        text = f"{subject} compared with version {rival.version}: {why}"
        reasons.append(Reason(name or objective.metric, False, text))
    return [*reasons, *_none_worse(named, rival.version, objective)]


def _better(one: Comparison, version: int, effect: float) -> Reason:
    holds, worse = one.gain > 0 and one.p_better <= ALPHA, one.gain < 0 and one.p_worse <= ALPHA
    verb = "beats" if holds else "is worse than" if worse else "does not clearly beat"
    text = (
        f"{one.metric} {one.challenger:.4g} {verb} {one.champion:.4g} of version {version} on the same "
        f"{one.examples:,} examples: gain {one.gain:.3g} [{one.low:.3g}, {one.high:.3g}], p = {one.p_better:.2g}"
    )
    if not holds and not worse and one.needed > one.examples:
        text += f"; to find a gain of {effect:.1%}, {one.needed:,} examples are needed"
    return Reason(one.metric, holds, text)


def _none_worse(others: Mapping[str, Comparison], version: int, objective: Objective) -> list[Reason]:
    """One reason for all that hold, and one for each that is worse, by more than the minimum effect."""
    if not others:
        return []
    chances = holm({name: c.p_worse for name, c in others.items()})
    reasons = []
    for name, c in others.items():
        if chances[name] <= ALPHA and -c.gain > objective.min_effect * abs(c.champion):
            text = f"{name} {c.challenger:.4g} is worse than {c.champion:.4g} of version {version}: gain {c.gain:.3g} "
            reasons.append(Reason(name, False, f"{text}[{c.low:.3g}, {c.high:.3g}], adjusted p = {chances[name]:.2g}"))
    if not reasons:
        names = ", ".join(others)
        reasons.append(Reason(names, True, f"not worse than version {version} (Holm's correction for {len(others)})"))
    return reasons


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
    rival = metric.get(other)
    if rival is None or metric["better"] == "neither":
        return Reason(name, False, f"{name} has no {other} to beat")
    low, high = metric["low"], metric["high"]
    holds = high < rival if metric["better"] == "lower" else low > rival
    verb = "beats" if holds else "does not clearly beat"
    figures = f"{metric['value']:.4g} [{low:.4g}, {high:.4g}]"
    return Reason(name, holds, f"{name} {figures} {verb} {other} {rival:.4g} ({metric['better']} is better)")


def _sign(holds: bool, yes: str, no: str) -> str:
    return yes if holds else no
