"""The terminal: a plan, the closing screen of a run, and errors. Colour only where it is a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line of texts, each alone or with its style. Nothing in them is markup or moves the cursor."""
    pieces = [(part, "") if isinstance(part, str) else part for part in parts]
    out.print(Text.assemble(*((safe(text), style) for text, style in pieces)), soft_wrap=True)


def say_next(commands: Iterable[tuple[str, str]]) -> None:
    """Commands to type next, each with what it does."""
    for command, what in commands:
        say("  ", (command, "cyan"), "  ", (what, "dim"))


def steps_table(steps: Iterable[Mapping[str, Any]]) -> Table:
    """Steps with hit or miss, seconds where there are any, and the reason of a miss."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("step", "left"), ("", "left"), ("seconds", "right"), ("why", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for s in steps:
        mark = Text("hit", "green") if s["cached"] else Text("miss", "yellow")
        seconds = f"{s['seconds']:.1f}" if s.get("seconds") else ""
        table.add_row(safe(s["name"]), mark, seconds, Text(safe(s["reason"]), "dim"))
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
    say((model["name"], "bold"), f" version {model['version']} is @{model['alias']}, in {report['seconds']:.1f} s")
    say_next(next_commands)


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True, overflow="ignore")
    for name in ("before", "after", "95 % interval", "baseline", "better"):
        table.add_column(name, justify="right")
    for name, m in metrics.items():
        before, baseline = ("" if m[k] is None else f"{m[k]:.4g}" for k in ("before", "baseline"))
        table.add_row(
            safe(name), before, f"{m['value']:.4g}", f"{m['low']:.4g} to {m['high']:.4g}", baseline, m["better"]
        )
    return table


def _gate(gate: Mapping[str, Any]) -> None:
    say("gate: ", ("promoted", "green") if gate["promote"] else ("refused", "red"))
    for reason in gate["reasons"]:
        say((f"  {reason}", "dim"))
    out.print()


def _exports(precisions: Iterable[Mapping[str, Any]]) -> None:
    for p in precisions:
        mark = ("accepted", "green") if p["accepted"] else ("refused", "red")
        say(f"export {p['precision']}: ", mark, " ", (p["reason"], "dim"))
    out.print()


def _answer(served: Mapping[str, Any], kind: str) -> None:
    if not served["served"]:
        say(f"not served: {served['reason']}\n")
    elif kind == "text":
        code = Syntax(
            safe(served["prompt"] + served["answer"].rstrip()), "python", background_color="default", word_wrap=True
        )
        out.print(Panel(code, title="one answer of the served model", border_style="dim"))
    else:
        size = len(served["answer"]) * 3 // 4
        say(f"one answer of the served model: a PNG of {size} bytes for the prompt {served['prompt']!r}\n")


def show_data(report: Mapping[str, Any]) -> None:
    """Rows by source: what was read and kept, and the reasons of what was not."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("source", "left"), ("read", "right"), ("kept", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("dropped", overflow="fold")
    table.add_column("quarantined", overflow="fold")
    for name, count in [*report["sources"].items(), ("all", report)]:
        left = [_lines(count[kind]) for kind in ("dropped", "quarantined")]
        mark = Text(safe(name), "bold" if count is report else "")
        table.add_row(mark, str(count["read"]), str(count["kept"]), *left, end_section=True)
    out.print(table)
    if report["examples"]:
        out.print("\nquarantined, for example")
    for row in report["examples"]:
        place = safe(": ".join(filter(None, (row["path"], row["detail"]))))
        out.print(Text(f"  {row['reason']}  ", "yellow") + Text(place, "dim"), soft_wrap=True)
    for name in (name for name, count in report["sources"].items() if count["read"] and not count["kept"]):
        out.print(Text(f"nothing is left of {safe(name)}", "bold yellow"), soft_wrap=True)
    rows = ", ".join(f"{number} {name}" for name, number in report["rows"].items())
    more = f" (with {report['augmented']} augmented copies)" if report["augmented"] else ""
    out.print(
        f"\n{rows}{more}; {report['expectations']} expectations checked, in {report['seconds']:.1f} s", soft_wrap=True
    )
    files = report["files"]
    told = [("dataset card", "card"), ("Data Docs", "docs"), ("rows", "rows")]
    told = [(what, files[key]) for what, key in told if key in files]
    for what, path in (*told, *(("left out", path) for path in files["left"])):
        say((f"  {what:<13}", "dim"), (path, "cyan"))


def _lines(reasons: Mapping[str, int]) -> Text:
    """One reason a line."""
    return Text(safe("\n".join(f"{number} {reason}" for reason, number in reasons.items())))


def show_pairs(found: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.items():
        pairs = value.items() if isinstance(value, Mapping) else [("", value)]
        for of, one in pairs:
            table.add_row(safe(f"{name.replace('_', ' ')} {of}".strip()), Text(_said(one)))
    out.print(table)


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return safe(", ".join(map(str, value)))
    return f"{value:.3f}" if isinstance(value, float) else "undefined" if value is None else safe(str(value))


def show_preview(found: Mapping[str, Any]) -> None:
    """Rows as they would be read, what is to be said of them, and how a recipe names their source."""
    for row in found["rows"]:
        out.print(Text(safe(row["path"]), "cyan"))
        cells = Table.grid(padding=(0, 2))
        cells.add_column(style="dim")
        cells.add_column(overflow="fold")
        for name, value in row.items():
            if name != "path":
                cells.add_row(safe(f"  {name}"), Text(safe(value)))
        out.print(cells)
    if found["rows"]:
        out.print()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("read", f"{found['read']} rows{', and there are more' if found['more'] else ''}")
    table.add_row("usable", str(found["kept"]))
    for reason, left in found["left_out"].items():
        place = safe(": ".join(filter(None, (left["path"], left["detail"]))))
        table.add_row("left out", Text(f"{reason} {left['rows']}  ", "yellow") + Text(place, "dim"))
    if found["row_type"]:
        table.add_row("row type", _counted(found["row_type"]))
    for name, value in found["quality"].items():
        table.add_row(name.replace("_", " "), _counted(value) if isinstance(value, dict) else str(value))
    out.print(table)
    out.print()
    out.print(Text("in a recipe  ", "dim") + Text(f"- {safe(_flow(found['source']))}"), soft_wrap=True)


def _counted(numbers: Mapping[str, Any]) -> Text:
    return Text(safe(", ".join(f"{name or 'other'} {number}" for name, number in numbers.items()) or "none"))


def _flow(value: Mapping[str, Any]) -> str:
    """YAML in one line."""
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)).strip()


def show_why(found: Mapping[str, Any]) -> None:
    """The data of a version, or the rows that were asked for."""
    aliases = "".join(f" @{alias}" for alias in found["aliases"])
    say((f"{found['model']} version {found['version']}{aliases}", "bold"))
    if "found" in found:
        _where(found)
    else:
        _made_from(found)


def _where(found: Mapping[str, Any]) -> None:
    for row in found["found"]:
        _row(row)
    nearest = found.get("nearest", [])
    asked = f"row {found['row']}" if "row" in found else "this text"
    if not found["found"]:
        say(f"{asked} is not in its data, nor among what was read for it")
    elif all(row["where"].startswith("left out") for row in found["found"]):
        say(f"{asked} was read, and left out: it was not trained on")
    if nearest:
        out.print("\nnearest rows, by the share of its runs of words that they have too")
    for row in nearest:
        _row(row, f"{row['similarity']:.0%}  ")


def _row(row: Mapping[str, Any], before: str = "") -> None:
    """Id, place and words of a row."""
    place = "/".join(filter(None, (row["source"], row["path"]))) + (f" ({row['license']})" if row["license"] else "")
    made = f"  made from {row['parent']}" if row["parent"] else ""
    say(f"{before}{row['id']}  {row['where']}  ", (place, "cyan"), made)
    if row["excerpt"]:
        say((f"  {row['excerpt']}", "dim"))


def _made_from(found: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("source", "type", "licence"):
        table.add_column(name, overflow="fold")
    for name in ("files", "read", "train", "heldout"):
        table.add_column(name, justify="right")
    for s in found["sources"]:
        numbers = (s["files"], s["read"], s["rows"].get("train", 0), s["rows"].get("heldout", 0))
        table.add_row(*(safe(s[name]) for name in ("name", "type", "license")), *map(str, numbers))
    out.print(table)
    for step, reasons in filter(lambda item: item[1], found["left_out"].items()):
        told = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
        say(f"left out by {step}: {told}")
    for split, number in found["rows"].items():
        say(f"{number} rows of {split}: ", (found["files"][split], "cyan"))
    for step, mark in found["lineage"].items():
        say((f"  {step} {mark}", "dim"))
    reference = f"{found['model']}/{found['version']}"
    asked = (("--text WORDS", "which rows say them"), ("--row ID", "where a row is, or why it was left out"))
    say_next((f"flywheel why {reference} {option}", what) for option, what in asked)


SHOWN = 10
"""Lines of one kind on the screen of `forget`; `--json` has all."""


def show_forget(found: Mapping[str, Any]) -> None:
    """What holds a subject, what was done, and what is left to do."""
    number = len(found["rows"])
    say(f"{number} {'row holds' if number == 1 else 'rows hold'} {found['subject']!r}")
    for row in found["rows"][:SHOWN]:
        _row(row)
    _more(number)
    _holders(found)
    if number:
        _done(found)
        _left_to_do(found)
    for path in found["unread"]:
        say((f"damaged, not looked into: {path}", "yellow"))
    for place in found["not_searched"]:
        say((f"not on this machine, not looked into: MLflow's files at {place}", "yellow"))
    for m in found["unknown"]:
        say((f"its data is not in this store, so it cannot be said: {_version(m)}", "yellow"))


def _holders(found: Mapping[str, Any]) -> None:
    for d in found["datasets"]:
        held = [f"{n} in {name}" for name, n in d["rows"].items()] + d["files"]
        held += [f"{d['left_out']} told of as left out"] if d["left_out"] else []
        say(f"  dataset   {d['step']}/{d['fingerprint']} of {d['recipe']}: {', '.join(held)}")
    for a in found["artifacts"]:
        say(f"  artifact  {a['step']}/{a['fingerprint']} of {a['recipe']}, made from these rows")
    for kind in ("snapshots", "files", "caches"):
        for path in found[kind][:SHOWN]:
            say(f"  {kind[:-1]:<9} {path}")
        _more(len(found[kind]))
    for m in found["spared"]:
        say(f"  {_version(m)} read these rows and left them out before it was trained")


def _done(found: Mapping[str, Any]) -> None:
    if not found["forgotten"]:
        say(("\nnothing was changed", "bold"), ": without --dry-run these rows are kept out of all later runs")
        return
    again = "" if found["new"] else ", as they were before"
    say(("\ndone", "bold"))
    out.print(f"  no later run reads these rows, not even when they move to another line or file{again}")
    if found["caches"]:
        out.print(f"  {len(found['caches'])} caches were removed; the next run makes them again without these rows")


def _left_to_do(found: Mapping[str, Any]) -> None:
    say(("\nleft to do", "bold"))
    for name in found["under_way"]:
        say("  ", ("a run is under way", "yellow"), f" ({name}) and may hold them yet: forget again when it is done")
    for m in found["retrain"]:
        used = ", ".join(f"{k.replace('_', ' ')} {m[k]} of them" for k in ("trained_on", "evaluated_on") if m[k])
        used = used or "its validated rows are gone, so take it that it was trained on them"
        say("  ", ("retrain", "yellow"), f" {_version(m)}: {used}")
    names = sorted({m["model"] for m in found["retrain"]})
    if names:
        say(f"    run the recipe of {', '.join(names)} again, then delete the old versions")
    files = Counter(f"{row['source']}/{row['path'].partition(':')[0]}" for row in found["rows"])
    told = [f"{name} ({number})" for name, number in files.most_common(SHOWN)] + ["..."] * (len(files) > SHOWN)
    say(f"  delete the rows where they come from: {', '.join(told)}")
    held = [f"{a['step']}/{a['fingerprint']}" for a in (*found["datasets"], *found["artifacts"])]
    if held := [*held, *found["snapshots"], *found["files"]]:
        out.print(
            f"  delete what still holds them, once nothing needs it: the {len(held)} places above", soft_wrap=True
        )


def _more(number: int) -> None:
    if number > SHOWN:
        out.print(f"  and {number - SHOWN} more (--json has all)", style="dim")


def _version(m: Mapping[str, Any]) -> str:
    return f"{m['model']} version {m['version']}" + "".join(f" @{alias}" for alias in m["aliases"])


def show_error(message: str) -> None:
    err.print(Text("error: ", "bold red") + Text(safe(message)), soft_wrap=True)


def safe(text: str) -> str:
    """A stranger's text without what moves the cursor or turns the direction of writing."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
