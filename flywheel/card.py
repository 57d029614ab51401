"""The model card: Markdown with the front matter of a model hub, made from a recipe and what its steps returned.

Nothing is asked of the clock, the network or the file system; equal facts give equal text. A step that is not among the
facts has no section.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from flywheel.recipe import Recipe
from flywheel.runtimes.base import Kind
from flywheel.sources.base import named_sources

TASKS: Mapping[Kind, str] = {"text": "text-generation", "image": "text-to-image"}
ROUTES: Mapping[Kind, str] = {"text": "/v1/completions", "image": "/v1/images/generations"}


@dataclass(frozen=True)
class CardFacts:
    """What the card tells."""

    recipe: Recipe
    kind: Kind
    """What the model answers with."""
    summaries: Mapping[str, Mapping[str, Any]]
    """Step name → the summary that the step returned."""
    fingerprints: Mapping[str, str]
    """Step name → fingerprint of its artifact."""


def card(facts: CardFacts) -> str:
    """The whole card. Metrics, export and gate are told as the steps measured them, the bad with the good."""
    sections = (
        ("", _opening(facts)),
        ("Intended use", _use(facts)),
        ("Data", _data(facts)),
        ("Training", _training(facts)),
        ("Evaluation", _evaluation(facts)),
        ("Gate", _gate(facts)),
        ("Export", _export(facts)),
        ("Limits", _limits(facts)),
        ("Serve it", _serving(facts)),
        ("Lineage", _lineage(facts)),
    )
    body = [f"## {title}\n\n{text}" if title else text for title, text in sections if text]
    return f"---\n{_front_matter(facts)}---\n\n" + "\n\n".join(body) + "\n"


def _front_matter(facts: CardFacts) -> str:
    recipe, measured, sources = facts.recipe, _metrics(facts), _sources(facts)
    matter = {
        "license": "other",
        "license_name": "see-data",
        "library_name": "onnxruntime",
        "pipeline_tag": TASKS[facts.kind],
        "tags": ["onnx", "flywheel", recipe.model.modality],
        "datasets": [s["path"] for s in sources],
        "metrics": list(measured),
    }
    if recipe.model.path:
        matter["base_model"] = _bare(recipe.model.path)
    if measured:
        result = {
            "task": {"type": TASKS[facts.kind]},
            "dataset": {"name": "held-out rows", "type": ", ".join(s["path"] for s in sources)},
            "metrics": [{"type": name, "name": name, "value": m["value"]} for name, m in measured.items()],
        }
        matter["model-index"] = [{"name": recipe.name, "results": [result]}]
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)


def _opening(facts: CardFacts) -> str:
    recipe = facts.recipe
    start = f"fine-tuned from `{_bare(recipe.model.path)}`" if recipe.model.path else "trained from scratch"
    return (
        f"# {recipe.name}\n\nA `{recipe.model.modality}` model, {start} by one recipe, exported to ONNX and served "
        "with onnxruntime. All figures below were measured by the run that made this version."
    )


def _use(facts: CardFacts) -> str:
    sources = ", ".join(f"`{s['path']}`" for s in _sources(facts))
    return (
        f"To generate {facts.kind} of the kind that is found in {sources}: for trials, teaching, and as a start for "
        "further training. Not meant for decisions about people, nor where a wrong answer does harm unseen."
    )


def _data(facts: CardFacts) -> str:
    ingest, prepare, valid = (facts.summaries.get(step, {}) for step in ("ingest", "prepare", "validate"))
    rows = [(f"`{s['path']}`", s["type"], s["license"], _figure(s.get("kept"))) for s in _sources(facts)]
    parts = [_table(("source", "kind", "licence", "rows kept"), rows)]
    parts += [_flow("ingest", ingest), _flow("prepare", prepare), _flow("validate", valid)]
    sizes = valid.get("rows") or {k: prepare[k] for k in ("train", "heldout") if k in prepare}
    if sizes:
        parts.append("Rows by split: " + ", ".join(f"{name} {count:,}" for name, count in sizes.items()) + ".")
    data, split = facts.recipe.data, facts.recipe.data.split
    if data.process:
        parts.append(
            "Operations: " + ", ".join(f"`{op if isinstance(op, str) else next(iter(op))}`" for op in data.process)
        )
    parts.append(
        f"{split.heldout:.0%} is held out by {split.by} and never trained on; near-duplicates of held-out rows are "
        "left out of the training rows."
    )
    return "\n\n".join(part for part in parts if part)


def _flow(step: str, summary: Mapping[str, Any]) -> str:
    """Rows in, rows out, and every reason between."""
    if "read" not in summary:
        return ""
    text = f"**{step}**: {summary['read']:,} rows read, {summary['kept']:,} kept"
    for word in ("dropped", "quarantined"):
        reasons = summary.get(word)
        if reasons:
            told = ", ".join(f"{name} {count:,}" for name, count in reasons.items())
            text += f"; {word} {sum(reasons.values()):,} ({told})"
    if summary.get("augmented"):
        text += f"; {summary['augmented']:,} augmented copies are added to the training rows"
    return text + "."


def _training(facts: CardFacts) -> str:
    recipe = facts.recipe
    stages = {stage: facts.summaries[stage] for stage in ("train", "finetune") if stage in facts.summaries}
    rows = [
        (name, *(_figure(s.get(k)) for k in ("steps", "parameters", "loss", "seconds"))) for name, s in stages.items()
    ]
    parts = [_table(("stage", "steps", "parameters", "final loss", "seconds"), rows)] if rows else []
    parts.append("Architecture: " + _pairs(recipe.model.model_dump(mode="json", exclude={"modality", "path"})))
    configs = {"train": recipe.train} | ({"finetune": recipe.finetune} if recipe.finetune else {})
    parts += [f"`{name}`: {_pairs(c.model_dump(mode='json', exclude={'process'}))}" for name, c in configs.items()]
    if recipe.peft is not None:
        parts.append(f"The last stage trained a LoRA adapter, merged at its end: {_pairs(recipe.peft.model_dump())}")
    if stages:
        used = [s.get("kilowatt_hours") for s in stages.values()]
        told = [kwh for kwh in used if kwh is not None]
        energy = f"{sum(told):.3g} kWh by the processors' own counters" if len(told) == len(used) else "not measured"
        parts.append(f"Energy: {energy}.")
    parts.append(f"Seed {recipe.seed}.")
    return "\n\n".join(parts)


def _evaluation(facts: CardFacts) -> str:
    measured = _metrics(facts)
    if not measured:
        return ""
    rows = []
    for name, m in measured.items():
        value, low, high, baseline, before = (_figure(m.get(k)) for k in ("value", "low", "high", "baseline", "before"))
        rows.append((f"`{name}`", m["better"], value, f"{low} to {high}", baseline, before))
    table = _table(("metric", "better", "value", "95 % interval", "baseline", "before"), rows)
    return (
        f"{table}\n\nOn held-out rows; intervals by bootstrap. `baseline` is a simple model fitted to the same rows, "
        "`before` the same model before the stage that should have improved it."
    )


def _gate(facts: CardFacts) -> str:
    if (decision := facts.summaries.get("gate")) is None:
        return ""
    verdict = "Promoted: every threshold holds." if decision["promote"] else "Not promoted."
    reasons = (f"- {'holds' if r['holds'] else 'fails'}: {r['text']}" for r in decision["reasons"])
    return "\n".join([verdict, "", *reasons])


def _export(facts: CardFacts) -> str:
    if (proof := facts.summaries.get("export")) is None:
        return ""
    rows = [
        (
            p["precision"],
            f"{p['max_logit_error']:.2g}",
            f"{p['tokens_equal']:,} of {p['tokens_compared']:,}",
            f"{p['speedup']:.2f}",
            f"{p['quality_change']:+.2%}",
            "accepted" if p["accepted"] else "refused",
            p["reason"],
        )
        for p in proof["precisions"]
    ]
    head = ("precision", "largest output error", "greedy steps equal", "speed", "metric worse by", "verdict", "reason")
    return (
        f"{_table(head, rows)}\n\nErrors, steps and metric against torch on held-out prompts. Speed is a ratio: fp32 "
        f"to torch, others to fp32. Served by default: {proof['default']}."
    )


def _limits(facts: CardFacts) -> str:
    limits = [
        "It knows what its data holds and nothing else; it invents names, facts and interfaces that look right.",
        "Training data was not filtered for form, duplicates, bias, personal data or safety, unless the lists "
        "above say so.",
        "Parts of the training data may come back word for word, under the licence of that data.",
        "The figures hold for held-out rows of the same sources; other data was not measured.",
    ]
    for reason in facts.summaries.get("gate", {}).get("reasons", ()):
        if not reason["holds"]:
            limits.append(f"It missed a threshold: {reason['text']}.")
    return "\n".join(f"- {limit}" for limit in limits)


def _serving(facts: CardFacts) -> str:
    name = facts.recipe.name
    alias = "" if facts.summaries.get("gate", {}).get("promote", True) else "@challenger"
    body = json.dumps({"model": name, "prompt": facts.recipe.deploy.smoke_prompt or "..."}, ensure_ascii=False)
    route = ROUTES[facts.kind]
    return (
        f"```sh\nflywheel serve {name}{alias}\ncurl http://127.0.0.1:8080{route} "
        f"-H 'content-type: application/json' \\\n  -d {shlex.quote(body)}\n```"
    )


def _lineage(facts: CardFacts) -> str:
    rows = [(step, f"`{digest}`") for step, digest in facts.fingerprints.items()]
    return _table(("step", "fingerprint"), rows) if rows else ""


def _metrics(facts: CardFacts) -> Mapping[str, Mapping[str, Any]]:
    measured: Mapping[str, Mapping[str, Any]] = facts.summaries.get("evaluate", {}).get("metrics", {})
    return measured


def _sources(facts: CardFacts) -> Sequence[Mapping[str, Any]]:
    """`type`, `path`, `license` and, where ingest ran, `kept`, without the directories of the machine that trained."""
    read: Mapping[str, Any] = facts.summaries.get("ingest", {}).get("sources", {})
    if read:
        return [{**count, "path": name} for name, count in read.items()]
    named = named_sources(facts.recipe.data.sources, {})
    return [{"type": n.source.type, "path": n.name, "license": n.source.license} for n in named]


def _bare(path: str) -> str:
    """The last part of a file path; a hub id (`owner/name`) stays whole."""
    return PurePath(path).name if path.startswith(("/", ".", "~")) else path


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _pairs(values: Mapping[str, Any]) -> str:
    """`name=value` of what is set; a nested section as `outer.inner=value`."""
    flat = {
        **{k: v for k, v in values.items() if not isinstance(v, Mapping)},
        **{
            f"{k}.{inner}": v
            for k, nested in values.items()
            if isinstance(nested, Mapping)
            for inner, v in nested.items()
        },
    }
    return "`" + ", ".join(f"{key}={value}" for key, value in flat.items()) + "`"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
