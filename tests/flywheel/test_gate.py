from __future__ import annotations

from typing import Any

from flywheel.gate import decide
from flywheel.recipe import Objective


def metric(value: float, low: float, high: float, better: str = "lower", **others: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "better": better, "baseline": None, "before": None, **others}


def objective(**thresholds: dict[str, Any]) -> Objective:
    return Objective.model_validate({"metric": "m", "thresholds": thresholds})


def test_it_promotes_when_every_threshold_holds() -> None:
    metrics = {"m": metric(1.6, 1.5, 1.7, baseline=1.8), "p": metric(0.6, 0.5, 0.7, "higher")}
    decision = decide(objective(m={"beats": "baseline"}, p={"min": 0.5, "max": 0.9}), metrics)
    assert decision.promote
    assert len(decision.reasons) == 3


def test_an_interval_that_reaches_the_baseline_does_not_beat_it() -> None:
    decision = decide(objective(m={"beats": "baseline"}), {"m": metric(1.6, 1.5, 1.8, baseline=1.8)})
    assert not decision.promote
    assert "does not clearly beat baseline 1.8" in decision.reasons[0].text


def test_direction_travels_with_the_metric() -> None:
    assert decide(objective(p={"beats": "before"}), {"p": metric(0.6, 0.5, 0.7, "higher", before=0.4)}).promote
    assert not decide(objective(p={"beats": "before"}), {"p": metric(0.6, 0.5, 0.7, "lower", before=0.4)}).promote


def test_a_missing_metric_a_missing_rival_and_no_threshold_all_refuse() -> None:
    assert decide(objective(q={"min": 0}), {}).reasons[0].text == "q was not measured"
    assert not decide(objective(m={"beats": "before"}), {"m": metric(1, 1, 1)}).promote
    assert not decide(objective(), {"m": metric(1, 1, 1)}).promote
