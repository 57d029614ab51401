from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from flywheel.evaluation_page import PageFacts, page

METRIC: dict[str, Any] = {
    "value": 1.5, "low": 1.4, "high": 1.6, "better": "lower", "baseline": 2.0, "before": None, "unit": "bits/byte",
    "detail": {"library": "none 1.0"},
}  # fmt: skip
COMPARISON: dict[str, Any] = {
    "metric": "bits_per_byte", "better": "lower", "challenger": 1.5, "champion": 1.7, "gain": 0.2, "low": 0.1,
    "high": 0.3, "p_better": 0.0002, "p_worse": 1.0, "examples": 1200, "needed": 300,
}  # fmt: skip
PRECISION = {"precision": "int8", "bytes": 5_000_000, "milliseconds_per_step": 1.25, "accepted": True, "reason": "fast"}


def facts(**changes: Any) -> PageFacts:
    decision = {
        "promote": True,
        "reasons": [{"metric": "m", "holds": True, "text": "1.5 beats 1.7"}],
        "champion": 3,
        "comparisons": [COMPARISON],
    }
    given: dict[str, Any] = {
        "name": "tiny", "objective": "bits_per_byte", "metrics": {"bits_per_byte": METRIC}, "decision": decision,
        "precisions": [PRECISION], "rows": {"train": 1000, "heldout": 100},
    }  # fmt: skip
    return PageFacts(**{**given, **changes})


def test_it_tells_verdict_metrics_and_the_champion() -> None:
    text = page(facts())
    assert "The gate admits this version." in text
    assert "compared with version 3" in text
    assert all(figure in text for figure in ("1.4 to 1.6", "0.1 to 0.3", "1,200", "bits/byte", "library: none 1.0"))


def test_it_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    text = page(facts(pictures=[("loss", b"\x89PNG")]))
    assert not re.findall(r"(?:https?:)?//\w", text)
    assert "<script" not in text
    assert "default-src 'none'" in text
    HTMLParser().feed(text)


def test_what_a_model_wrote_is_text() -> None:
    text = page(facts(samples=[{"prompt": "<b>hi", "completion": "</pre><script>alert(1)</script>"}]))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_refusal_without_a_champion() -> None:
    decision = {
        "promote": False,
        "reasons": [{"metric": "m", "holds": False, "text": "too few"}],
        "champion": 0,
        "comparisons": [],
    }
    text = page(facts(decision=decision))
    assert "The gate refuses this version." in text
    assert "no champion to compare" in text
