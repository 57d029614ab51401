"""The evaluation report: one self-contained HTML page that says why a version was promoted, or was not.

It names no other address and runs no script; what a model wrote is escaped. Equal facts give equal bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = Path(__file__).with_suffix(".html")
BAR = 200
"""Pixels of an interval's drawing."""


@dataclass(frozen=True)
class PageFacts:
    """What the page tells."""

    name: str
    objective: str
    """The metric that ranks versions."""
    metrics: Mapping[str, Mapping[str, Any]]
    decision: Mapping[str, Any]
    """What the gate returned: `promote`, `reasons`, `champion`, `comparisons`."""
    precisions: Sequence[Mapping[str, Any]]
    """What the export proved."""
    rows: Mapping[str, int]
    """Rows by split."""
    samples: Sequence[Mapping[str, Any]] = ()
    """What a room shows, such as `prompt` and `completion`."""
    pictures: Sequence[tuple[str, bytes]] = ()
    """A title and a PNG."""


def page(facts: PageFacts) -> str:
    """The whole page, UTF-8."""
    measured = [
        {"name": name, **metric, "bar": _bar(metric), "detail": _detail(metric.get("detail") or {})}
        for name, metric in sorted(facts.metrics.items(), key=lambda item: item[0] != facts.objective)
    ]
    compared = [{**one, "bar": _gain(one)} for one in facts.decision.get("comparisons", ())]
    pictures = [(title, base64.b64encode(png).decode()) for title, png in facts.pictures]
    return _template().render(facts=facts, measured=measured, compared=compared, pictures=pictures, width=BAR)


def gather(directory: Path) -> tuple[list[dict[str, Any]], list[tuple[str, bytes]]]:
    """The samples and the pictures that the step `evaluate` left in a directory."""
    file = directory / "samples.json"
    samples = json.loads(file.read_text()) if file.exists() else []
    return samples, [(png.stem, png.read_bytes()) for png in sorted(directory.glob("*.png"))]


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = _figure
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _detail(detail: Mapping[str, Any]) -> str:
    """What a number depends on, in a line; long lists are cut."""
    parts = [f"{key}: {value if isinstance(value, str | int) else json.dumps(value)}" for key, value in detail.items()]
    return "; ".join(part if len(part) <= 160 else f"{part[:160]}…" for part in parts)


def _bar(metric: Mapping[str, Any]) -> dict[str, float]:
    """Places of value, interval and rivals on a line, in pixels; nothing where there is no rival to see it beside."""
    named = {key: metric.get(key) for key in ("low", "value", "high", "baseline", "before")}
    found = {key: float(value) for key, value in named.items() if value is not None}
    return _places(found) if len(found) > 3 else {}


def _gain(one: Mapping[str, Any]) -> dict[str, float]:
    return _places({"low": one["low"], "value": one["gain"], "high": one["high"], "zero": 0.0})


def _places(values: Mapping[str, float]) -> dict[str, float]:
    least, most = min(values.values()), max(values.values())
    span = (most - least) or 1.0
    return {key: round(10 + (BAR - 20) * (value - least) / span, 1) for key, value in values.items()}
