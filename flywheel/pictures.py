"""Pictures of a run as PNG bytes: loss curves, and metrics beside what they are compared with.

Equal figures give equal bytes for the same version of matplotlib.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, ACCENT, PALE, LINE = "#222222", "#1b6ca8", "#b9c0c7", "#dddddd"


def loss_curve(history: Sequence[Mapping[str, float]]) -> bytes:
    """PNG, 840x500 pixels, of points `{"step", "loss"}`; a `learning_rate` gets a strip of its own below.

    Points that are not finite are left out.
    """
    figure = _figure(8.4, 5.0)
    rated = [row for row in history if "learning_rate" in row]
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1], squeeze=False)[:, 0] if rated else None
    loss = figure.subplots() if panels is None else panels[0]
    points = [(row["step"], row["loss"]) for row in history if math.isfinite(row.get("loss", math.nan))]
    if points:
        _line(loss, points)
    loss.set_title("training loss" if points else "training loss: no finite value", loc="left", color=INK)
    loss.set_xlim(left=0)
    bottom = loss
    _plain(loss)
    if panels is not None:
        bottom = panels[1]
        bottom.plot([r["step"] for r in rated], [r["learning_rate"] for r in rated], color=INK, linewidth=1.2)
        bottom.set_ylabel("learning rate", fontsize=8)
        bottom.set_ylim(bottom=0)
        _plain(bottom)
    bottom.set_xlabel("optimizer step")
    loss.set_ylabel("loss")
    return _png(figure)


def _line(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """The curve, with its last value written at its end."""
    axes.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.8, marker="o", markersize=2.5)
    offset: Any = {"xytext": (0, 8), "textcoords": "offset points", "ha": "right"}
    axes.annotate(f"{points[-1][1]:.3f}", points[-1], color=ACCENT, weight="bold", **offset)


def metrics(measured: Mapping[str, Mapping[str, Any]]) -> bytes:
    """PNG of bars, one panel for each metric: this model with its 95 % interval, and its `before` and `baseline`.

    `measured` maps a name to `value`, `low`, `high`, `better`, `baseline`, `before`; the last two may be None. A metric
    whose value is not finite is left out.
    """
    rows = {name: _bars(metric) for name, metric in measured.items() if math.isfinite(metric["value"])}
    heights = [len(bars) + 1.2 for bars in rows.values()]
    figure = _figure(8.4, 0.5 + 0.36 * sum(heights))
    panels = figure.subplots(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0] if rows else ()
    for panel, (name, bars) in zip(panels, rows.items(), strict=True):
        _panel(panel, name, measured[name], bars)
    return _png(figure)


def _bars(metric: Mapping[str, Any]) -> dict[str, float]:
    others = {key: metric.get(key) for key in ("before", "baseline")}
    return {"this model": metric["value"], **{k: v for k, v in others.items() if v is not None and math.isfinite(v)}}


def _panel(axes: Axes, name: str, metric: Mapping[str, Any], bars: Mapping[str, float]) -> None:
    value, low, high = metric["value"], metric["low"], metric["high"]
    labels = list(bars)
    axes.barh(labels, list(bars.values()), color=[ACCENT, PALE, PALE][: len(bars)], height=0.62)
    axes.errorbar(value, labels[0], xerr=[[value - low], [high - value]], color=INK, capsize=3, linewidth=1.2)
    reach = max(high, *bars.values())
    for row, width in enumerate(bars.values()):
        text = f"{width:.4g}" if row else f"{width:.4g}  [{low:.4g}, {high:.4g}]"
        axes.text(width if row else high, row, f"  {text}", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(min(0.0, low, *bars.values()), reach * 1.28 or 1.0)
    axes.set_title(f"{name} ({metric['better']} is better)", loc="left", fontsize=9.5, color=INK)
    axes.invert_yaxis()
    _plain(axes, grid="x")


def importance(shares: Mapping[str, float], metric: str) -> bytes:
    """PNG of bars: the share of a metric's variance over the trials of a search that each key explains."""
    figure = _figure(8.4, 1.1 + 0.36 * len(shares))
    axes = figure.subplots()
    axes.barh(list(shares), list(shares.values()), color=ACCENT, height=0.62)
    for row, share in enumerate(shares.values()):
        axes.text(share, row, f"  {share:.0%}", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_title(f"what explains the variance of {metric}", loc="left", fontsize=9.5, color=INK)
    axes.invert_yaxis()
    _plain(axes, grid="x")
    return _png(figure)


def search_history(trials: Sequence[Mapping[str, Any]], metric: str, better: str) -> bytes:
    """PNG, 840x420 pixels, of trials `{"number", "state", "value"}`: the value of each finished one, the best so far as
    a line, and a tick at the bottom for each that was stopped or failed. `better` is `lower` or `higher`."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(8.4, 4.2)
    axes = figure.subplots()
    finished = [(t["number"], t["value"]) for t in trials if t["state"] == "finished"]
    if finished:
        numbers, values = zip(*finished, strict=True)
        so_far = list(itertools.accumulate(values, min if better == "lower" else max))
        axes.scatter(numbers, values, color=PALE, s=26, zorder=2, label="a trial")
        axes.step([*numbers, trials[-1]["number"]], [*so_far, so_far[-1]], where="post", color=ACCENT, linewidth=1.8)
        offset: Any = {"xytext": (0, 8), "textcoords": "offset points", "ha": "right"}
        at = trials[-1]["number"], so_far[-1]
        axes.annotate(f"best {so_far[-1]:.4g}", at, color=ACCENT, weight="bold", **offset)
    left = [t["number"] for t in trials if t["state"] in ("pruned", "failed")]
    axes.plot(left, [0] * len(left), "|", color=INK, transform=axes.get_xaxis_transform(), clip_on=False, markersize=9)
    axes.set_title(f"{metric} ({better} is better); ticks: stopped or failed", loc="left", fontsize=9.5, color=INK)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.grid(True, axis=grid, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, color=LINE)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
