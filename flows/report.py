"""The report of a run: one JSON object for programs, a Markdown page for Prefect's UI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flywheel.plan import PlannedStep
from flywheel.recipe import Recipe

FILE = "last-run.json"


def build(
    recipe: Recipe, planned: Iterable[PlannedStep], done: Mapping[str, Mapping[str, Any]], **ids: Any
) -> dict[str, Any]:
    """`done` holds a reference (`summary`, `seconds`) for each step; `ids` are run ids and seconds."""
    summaries = {name: reference["summary"] for name, reference in done.items()}
    gate, registered = summaries["gate"], summaries["register"]
    return {
        "recipe": recipe.name,
        **ids,
        "steps": steps(planned, done),
        "metrics": summaries["evaluate"]["metrics"],
        "gate": {"promote": gate["promote"], "reasons": [r["text"] for r in gate["reasons"]]},
        "export": summaries["export"]["precisions"],
        "model": {key: registered[key] for key in ("name", "version", "alias", "kind")},
        "served": summaries["deploy"],
    }


def steps(planned: Iterable[PlannedStep], done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every step with hit or miss, why, and how long it took."""
    return [{**line(s), "seconds": 0.0 if s.cached else done[s.name]["seconds"]} for s in planned]


def line(step: PlannedStep) -> dict[str, Any]:
    """One step as `flywheel plan --json` prints it."""
    return {"name": step.name, "fingerprint": step.fingerprint, "cached": step.cached, "reason": step.reason}


def save(home: Path, report: Mapping[str, Any]) -> None:
    """Replace `.flywheel/last-run.json` in one move."""
    home.mkdir(parents=True, exist_ok=True)
    draft = home / f".{FILE}"
    draft.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(draft, home / FILE)


def markdown(report: Mapping[str, Any]) -> str:
    """Steps, metrics and the gate's reasons for people who look at the flow run."""
    model = report["model"]
    lines = [f"# {report['recipe']}: {model['name']} version {model['version']} @{model['alias']}", ""]
    lines += ["| step | | seconds | why |", "|---|---|---:|---|"]
    for s in report["steps"]:
        lines.append(f"| {s['name']} | {'hit' if s['cached'] else 'miss'} | {s['seconds']:.1f} | {s['reason']} |")
    lines += ["", "| metric | value | 95 % | baseline | before |", "|---|---:|---|---:|---:|"]
    for name, m in report["metrics"].items():
        others = " | ".join("" if m[k] is None else f"{m[k]:.4g}" for k in ("baseline", "before"))
        lines.append(f"| {name} | {m['value']:.4g} | {m['low']:.4g} to {m['high']:.4g} | {others} |")
    lines += ["", f"**Gate: {'promoted' if report['gate']['promote'] else 'refused'}**", ""]
    lines += [f"- {reason}" for reason in report["gate"]["reasons"]]
    return "\n".join(lines)


def data_markdown(report: Mapping[str, Any]) -> str:
    """Rows by source and reason for people who look at the flow run."""
    lines = [f"# {report['recipe']}: {report['kept']} of {report['read']} rows kept", ""]
    lines += ["| source | read | kept | dropped | quarantined |", "|---|---:|---:|---|---|"]
    for name, count in [*report["sources"].items(), ("**all**", report)]:
        left = [", ".join(f"{reason} {n}" for reason, n in count[kind].items()) for kind in ("dropped", "quarantined")]
        lines.append(f"| {name} | {count['read']} | {count['kept']} | {' | '.join(left)} |")
    return "\n".join(lines)
