"""register: bundle, scores and decision → a version in the registry, under the alias that the gate decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from flywheel import dossier, evaluation_page, fingerprint
from flywheel.modalities.rooms import ROOMS
from tasks import approval, policy
from tasks.shell import Job, Reference, Scope, Summary, perform

if TYPE_CHECKING:
    from infra.registry import Version


@task(**policy.options("register"))
def register(job: Job, history: dict[str, Reference]) -> Reference:
    """Upload everything once, with card and lineage; `history` holds the reference of every earlier step."""

    def work(step: Scope) -> Summary:
        from infra import registry

        kind = ROOMS[job.recipe.model.modality].kind
        marks = {name: reference["fingerprint"] for name, reference in history.items()}
        measured = history["evaluate"]["summary"]["metrics"]
        candidate = registry.Candidate(
            name=job.recipe.name,
            bundle=job.path(history["export"]),
            run_id=job.run_id,
            fingerprint=job.step.fingerprint,
            kind=kind,
            card=gather(job, history, step.out),
            tags=_tags(job, history, marks),
            metrics={name: m["value"] for name, m in measured.items()},
            weights=job.path(history[dossier.last_stage(marks)]) / "model",
            papers=step.out,
        )
        version = registry.register(job.settings, candidate)
        alias, note = _place(job, version, history["gate"]["summary"])
        return {
            "name": version.name,
            "version": version.version,
            "alias": alias,
            "note": note,
            "kind": kind,
            "run_id": job.run_id,
            "uri": f"models:/{version.name}@{alias}",
        }

    return perform(job, work)


def gather(job: Job, history: dict[str, Reference], out: Path) -> str:
    """Write everything that a version says of itself into `out`: the one place where that is put together. Returns the
    model card."""
    from flywheel.card import CardFacts, card

    summaries = {name: reference["summary"] for name, reference in history.items()}
    marks = {name: reference["fingerprint"] for name, reference in history.items()}
    text = card(CardFacts(job.recipe, ROOMS[job.recipe.model.modality].kind, summaries, marks))
    (out / "README.md").write_text(text)
    dossier.write(job.recipe, job.settings.store, marks, summaries, out)
    samples, pictures = evaluation_page.gather(job.path(history["evaluate"]))
    facts = evaluation_page.PageFacts(
        name=job.recipe.name,
        objective=job.recipe.objective.metric,
        metrics=summaries["evaluate"]["metrics"],
        decision=summaries["gate"],
        precisions=summaries["export"]["precisions"],
        rows=summaries["validate"]["rows"],
        samples=samples,
        pictures=pictures,
    )
    (out / "evaluation.html").write_text(evaluation_page.page(facts), encoding="utf-8")
    return text


def _tags(job: Job, history: dict[str, Reference], marks: dict[str, str]) -> dict[str, str]:
    """Lineage; the weights, and the champion that the gate compared them with; the objective's metric."""
    from infra import versions

    written = fingerprint.of_values(job.recipe.model_dump(mode="json", by_alias=True), "recipe")
    modules = {name: mark for name, mark in job.step.ingredients.items() if name.startswith("module:")}
    found = {f"lineage.{name}": mark for name, mark in marks.items()} | {
        "lineage.recipe": fingerprint.fingerprint(written),
        "lineage.code": fingerprint.fingerprint(modules),
        versions.TRAINED: marks[dossier.last_stage(marks)],
    }
    if rival := history["gate"]["summary"]["champion"]:
        found[versions.OVER] = str(rival)
    name = job.recipe.objective.metric
    if one := history["evaluate"]["summary"]["metrics"].get(name):
        shown = {key: one.get(key) for key in ("value", "low", "high", "better", "unit")}
        found[versions.OBJECTIVE] = json.dumps({"metric": name, **shown})
    return found


def _place(job: Job, version: Version, gate: Summary) -> tuple[str, str]:
    """Give a version the alias that the gate, and people before or after it, decided. Returns it, and what is to be
    said of a version that is not the champion."""
    from infra import promotion
    from infra.versions import CANDIDATE, CHALLENGER, CHAMPION

    settings, reasons = job.settings, "; ".join(r["text"] for r in gate["reasons"])
    why = "the gate refused this version" if not gate["promote"] else promotion.barred(settings, version)
    if CHAMPION in version.aliases or not (why or job.recipe.promote.approval):
        over = gate["champion"]
        promotion.promote(settings, version.name, version.version, by=promotion.GATE, reason=reasons, over=over)
        return CHAMPION, ""
    if why:
        promotion.place(settings, version, CHALLENGER, reasons)
        return CHALLENGER, why
    promotion.place(settings, version, CANDIDATE, reasons)
    asked = approval.ask(version)
    return (
        CANDIDATE,
        f"awaiting approval: flywheel promote {version}{f', or the form of {asked} in Prefect' if asked else ''}",
    )
