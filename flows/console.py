"""The terminal: a plan, the closing screen of a run, and errors. Colour only where it is a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def steps_table(steps: Iterable[Mapping[str, Any]]) -> Table:
    """Steps with hit or miss, seconds where there are any, and the reason of a miss."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("step", "left"), ("", "left"), ("seconds", "right"), ("why", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for s in steps:
        mark = Text("hit", "green") if s["cached"] else Text("miss", "yellow")
        seconds = f"{s['seconds']:.1f}" if s.get("seconds") else ""
        table.add_row(s["name"], mark, seconds, Text(s["reason"], "dim"))
    return table


def show_plan(steps: Iterable[Mapping[str, Any]]) -> None:
    out.print(steps_table(steps))


def show_run(report: Mapping[str, Any], next_commands: Iterable[tuple[str, str]]) -> None:
    """The closing screen: steps, metrics, the gate's reasons, one real answer, and what to type next."""
    out.print(steps_table(report["steps"]))
    out.print()
    out.print(_metrics(report["metrics"]))
    out.print()
    _gate(report["gate"])
    _exports(report["export"])
    model = report["model"]
    _answer(report["served"], model["kind"])
    out.print(f"[bold]{model['name']}[/] version {model['version']} is @{model['alias']}, in {report['seconds']:.1f} s")
    for command, what in next_commands:
        out.print(f"  [cyan]{command}[/]  [dim]{what}[/]", soft_wrap=True)


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True, overflow="ignore")
    for name in ("before", "after", "95 % interval", "baseline", "better"):
        table.add_column(name, justify="right")
    for name, m in metrics.items():
        before, baseline = ("" if m[k] is None else f"{m[k]:.4g}" for k in ("before", "baseline"))
        table.add_row(name, before, f"{m['value']:.4g}", f"{m['low']:.4g} to {m['high']:.4g}", baseline, m["better"])
    return table


def _gate(gate: Mapping[str, Any]) -> None:
    verdict = "[green]promoted[/]" if gate["promote"] else "[red]refused[/]"
    out.print(f"gate: {verdict}")
    for reason in gate["reasons"]:
        out.print(f"  {reason}", style="dim", soft_wrap=True)
    out.print()


def _exports(precisions: Iterable[Mapping[str, Any]]) -> None:
    for p in precisions:
        mark = "[green]accepted[/]" if p["accepted"] else "[red]refused[/]"
        out.print(f"export {p['precision']}: {mark} [dim]{p['reason']}[/]", soft_wrap=True)
    out.print()


def _answer(served: Mapping[str, Any], kind: str) -> None:
    if not served["served"]:
        out.print(f"not served: {served['reason']}\n", soft_wrap=True)
    elif kind == "text":
        code = Syntax(
            served["prompt"] + served["answer"].rstrip(), "python", background_color="default", word_wrap=True
        )
        out.print(Panel(code, title="one answer of the served model", border_style="dim"))
    else:
        size = len(served["answer"]) * 3 // 4
        out.print(f"one answer of the served model: a PNG of {size} bytes for the prompt {served['prompt']!r}\n")


def show_error(message: str) -> None:
    err.print(Text("error: ", "bold red") + Text(message), soft_wrap=True)
