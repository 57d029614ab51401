"""What a review says: win rate or mean points with intervals, agreement of the raters, and where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flywheel.labelling import Label, agreement
from flywheel.methods.dialogue import plain_text
from flywheel.metrics.metric import Metric, bootstrap_mean
from flywheel.review import POINTS, Opinions, counted

EXCERPT = 120
"""Characters of a question."""
_WORTH = {"a": 1.0, "tie": 0.5, "b": 0.0}


def report(found: Opinions) -> dict[str, Any]:
    """Plain JSON. Where answers are compared, `win_rate` (0 to 1, half of the ties added) is that of side `a`.

    Each item counts once, whatever its number of raters; intervals are of items.
    """
    batch, key = found.opened.batch, found.key
    told = {
        "mode": batch.mode,
        "sides": dict(zip("ab", key.sides, strict=False)),
        "items": len(batch.items),
        "identical": key.identical,
        "raters": counted(found),
    }
    own = _compared(found) if batch.mode == "compare" else _rated(found)
    prompts = {item.id: plain_text(item.prompt) for item in batch.items}
    own["disagreements"] = [{**one, "prompt": prompts[one["item"]][:EXCERPT]} for one in own["disagreements"]]
    comments = [{"item": v.item, "rater": v.rater, "comment": v.comment} for v in found.verdicts if v.comment.strip()]
    return {**told, **own, "comments": comments}


def _compared(found: Opinions) -> dict[str, Any]:
    choices = found.choices()
    every = [winner for said in choices.values() for winner in said.values()]
    shown = [v.choice for v in found.verdicts if v.choice in ("A", "B")]
    values = np.array([np.mean([_WORTH[winner] for winner in said.values()]) for said in choices.values()])
    order = list(_WORTH)
    return {
        "judged": len(choices),
        "win_rate": _interval(bootstrap_mean("win_rate", "higher", values)),
        "choices": {name: every.count(name) for name in _WORTH},
        "prefers_first": shown.count("A") / len(shown) if shown else None,
        "agreement": _agreement(choices, ordinal=False, order=order),
        "disagreements": _disagreements(choices),
    }


def _rated(found: Opinions) -> dict[str, Any]:
    scales, disagreements = {}, []
    for scale in found.opened.batch.scales:
        ratings = found.ratings(scale)
        if not ratings:
            continue
        means = np.array([np.mean(list(said.values())) for said in ratings.values()])
        scales[scale] = {
            "judged": len(ratings),
            **_interval(bootstrap_mean(scale, "higher", means)),
            "agreement": _agreement(ratings, ordinal=True, order=range(1, POINTS + 1)),
        }
        disagreements += [{"scale": scale, **one} for one in _disagreements(ratings)]
    return {"scales": scales, "disagreements": disagreements}


def _interval(metric: Metric) -> dict[str, float]:
    return {"value": metric.value, "low": metric.low, "high": metric.high}


def _agreement(said: Mapping[str, Mapping[str, Any]], *, ordinal: bool, order: Sequence[Any]) -> dict[str, Any]:
    labels = [Label(item, "", rater, str(one)) for item, by in said.items() for rater, one in by.items()]
    places = {value: place for place, value in enumerate(order)}
    units = [[places[one] for one in by.values()] for by in said.values()]
    return {**agreement(labels).as_dict(), "krippendorff": krippendorff(units, ordinal=ordinal)}


def _disagreements(said: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"item": item, "said": dict(by)} for item, by in said.items() if len(set(by.values())) > 1]


def krippendorff(units: Sequence[Sequence[int]], *, ordinal: bool) -> float | None:
    """Krippendorff's alpha of units, each with the values that raters gave it, however many they are.

    1 is always agreed, 0 as by chance; None where no unit has two values or all values are one. Source: Krippendorff
    (2011), Computing Krippendorff's Alpha-Reliability, with its nominal or ordinal difference.
    """
    paired = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in paired for value in unit})
    if len(values) < 2:
        return None
    coincidences = np.zeros((len(values), len(values)))
    for unit in paired:
        counts = np.array([unit.count(value) for value in values], dtype=np.float64)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(axis=1)
    ranks = np.cumsum(totals) - totals / 2
    difference = (ranks[:, None] - ranks) ** 2 if ordinal else 1 - np.eye(len(values))
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    return float(1 - (coincidences * difference).sum() / (expected * difference).sum())
