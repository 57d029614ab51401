"""The closing screen of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from flows import study
from flows.console import out, say

SHOWN = 10
"""Trials on the screen, the best first; `--json` has all."""
_COLOURS = {"finished": "green", "pruned": "dim", "failed": "red", "running": "yellow"}


def show(report: Mapping[str, Any]) -> None:
    """The best trials, what mattered, and what to type next."""
    trials = study.ranked(report)
    out.print(_trials(trials[:SHOWN], report["metric"]))
    if len(trials) > SHOWN:
        out.print(f"and {len(trials) - SHOWN} more (--json has all)", style="dim")
    for key, share in report["importance"].items():
        out.print(Text(f"  {share:>4.0%}  ", "bold") + Text(key), soft_wrap=True)
    for line in _remarks(report):
        out.print(Text(line, "yellow"), soft_wrap=True)
    best = report["best"]
    if best is None:
        out.print("no trial has come to its end yet; the same command goes on")
        return
    told = f" has the best {report['metric']}, {best['value']:.4g} ({report['better']} is better)"
    say((f"trial {best['number']}", "bold"), told, f", in {report['seconds']:.1f} s")
    out.print(Text("  flywheel run ", "cyan") + Text(report["best_recipe"], "cyan"), soft_wrap=True)
    out.print(Text(f"  {report['directory']}  trials and pictures", "dim"), soft_wrap=True)


def _trials(trials: list[dict[str, Any]], metric: str) -> Table:
    keys = list(trials[0]["params"]) if trials else []
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column(metric, justify="right")
    for key in keys:
        table.add_column(Text(_short(key)), overflow="fold")
    table.add_column("")
    table.add_column("seconds", justify="right")
    for t in trials:
        value = "" if t["value"] is None else f"{t['value']:.4g}"
        cells = [Text(f"{v:.4g}" if isinstance(v, float) else str(v)) for v in t["params"].values()]
        state = Text(t["state"], _COLOURS[t["state"]])
        if t["state"] == "failed":
            state += Text(f": {t['reason']}", "dim")
        table.add_row(str(t["number"]), value, *cells, state, f"{t['seconds'] or 0:.1f}")
    return table


def _short(key: str) -> str:
    """The last two parts of a key."""
    return ".".join(key.split(".")[-2:])


def _remarks(report: Mapping[str, Any]) -> list[str]:
    """What a reader of these figures should know."""
    running = sum(t["state"] == "running" for t in report["trials"])
    found = [f"{running} trials are not at their end; the same command goes on"] if running else []
    if not report["same_heldout_rows"]:
        found.append("these values change the held-out rows too: trials were not all measured on the same ones")
    return found
