"""The terminal for `flywheel models`, `promote`, `rollback` and `diff`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from flows.console import out, safe, say, say_next


def show_models(found: Mapping[str, Any], *, history: bool) -> None:
    """A line for each version, the newest of each model first; `history`: then every move of its aliases."""
    if not found["models"]:
        out.print("no model is registered: run a recipe")
    for number, model in enumerate(found["models"]):
        if number:
            out.print()
        say((model["name"], "bold"))
        for line in _versions(model["versions"]):
            say(line)
        if history and model["history"]:
            out.print("\nhistory")
            out.print(_history(model["history"]))


def _versions(versions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """A line of figures for each, and below it what became of it."""
    rows = [
        (str(v["version"]), " ".join(f"@{a}" for a in v["aliases"]), _objective(v["objective"]), v["created"][:10])
        for v in versions
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    for v, row in zip(versions, rows, strict=True):
        cells = [row[0].rjust(widths[0]), *(cell.ljust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  " + "  ".join(cells).rstrip(), "green" if "champion" in v["aliases"] else ""
        yield from ((" " * (widths[0] + 4) + line, "dim") for line in _story(v))


def _objective(measured: Mapping[str, Any] | None) -> str:
    if measured is None:
        return ""
    interval = f" [{measured['low']:.4g}, {measured['high']:.4g}]" if measured.get("low") is not None else ""
    unit = f" {measured['unit']}" if measured.get("unit") else ""
    return f"{measured['metric']} {measured['value']:.4g}{interval}{unit}"


def _story(version: Mapping[str, Any]) -> Iterator[str]:
    """By whom it was promoted, when and why; and what became of it."""
    if move := version["promoted"]:
        yield f"promoted by {move['by']} on {move['at'][:10]}{_why(move['reason'])}"
    for mark in ("rolled_back", "declined"):
        if version[mark]:
            yield f"{mark.replace('_', ' ')}{_why(version[mark])}"


def _why(reason: str) -> str:
    return f": {reason}" if reason else ""


def _history(moves: Iterable[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    for move in moves:
        went = f"@{move['alias']} {move['over'] or '-'} → {move['version']}"
        table.add_row(*map(safe, (move["at"][:19].replace("T", " "), went, move["by"], move["reason"])))
    return table


def show_move(done: Mapping[str, Any]) -> None:
    """What was moved, and what to type next."""
    instead = f" instead of version {done['over']}" if done["over"] else ""
    what = f"@{done['alias']}{instead}" if done["moved"] else f"@{done['alias']} already: nothing moved"
    say((done["model"], "bold"), f" version {done['version']} is {what}")
    say_next(
        (
            (f"flywheel models {done['model']}", "versions, and the history of this"),
            (f"flywheel rollback {done['model']}", "go back to the champion before"),
        )
    )


def show_diff(found: Mapping[str, Any]) -> None:
    """Two versions side by side: what is not the same, and all metrics."""
    names = [f"{v['name']}/{v['version']}" + "".join(f" @{a}" for a in v["aliases"]) for v in found["versions"]]
    say((" → ".join(names), "bold"))
    for part in ("recipe", "data"):
        say((f"\n{part}", "bold"))
        for line in found[part] or ["the same"]:
            say(f"  {line}")
    say(("\nmetrics", "bold"))
    out.print(_metrics(found["metrics"], names))
    say(("\npackages", "bold"))
    for name, (before, after) in found["packages"].items():
        say(f"  {name} {before or 'absent'} → {after or 'absent'}")
    if not found["packages"]:
        out.print("  the same")
    if found["missing"]:
        say((f"\nnot kept by one of them: {', '.join(found['missing'])}", "yellow"))


def _metrics(metrics: Mapping[str, Iterable[Mapping[str, Any] | None]], names: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("  metric", no_wrap=True)
    for name in names:
        table.add_column(safe(name.partition(" ")[0]), justify="right")
    table.add_column("better")
    for name, both in metrics.items():
        figures = ["" if m is None else f"{m['value']:.4g} [{m['low']:.4g}, {m['high']:.4g}]" for m in both]
        better = next((m["better"] for m in both if m is not None), "")
        table.add_row(safe(f"  {name}"), *figures, better)
    return table
