"""register: bundle, scores and decision → a version in the registry, under the alias that the gate decided."""

from __future__ import annotations

from prefect import task

from flywheel import fingerprint
from flywheel.modalities.rooms import ROOMS
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("register"))
def register(job: Job, history: dict[str, Reference]) -> Reference:
    """Upload the bundle once, with card and lineage; `history` holds the reference of every earlier step."""

    def work(step: Scope) -> Summary:
        from flywheel.card import CardFacts, card
        from infra import registry

        kind = ROOMS[job.recipe.model.modality].kind
        summaries = {name: reference["summary"] for name, reference in history.items()}
        marks = {name: reference["fingerprint"] for name, reference in history.items()}
        text = card(CardFacts(job.recipe, kind, summaries, marks))
        (step.out / "README.md").write_text(text)
        written = fingerprint.of_values(job.recipe.model_dump(mode="json", by_alias=True), "recipe")
        modules = {name: mark for name, mark in job.step.ingredients.items() if name.startswith("module:")}
        lineage = {f"lineage.{name}": mark for name, mark in marks.items()} | {
            "lineage.recipe": fingerprint.fingerprint(written),
            "lineage.code": fingerprint.fingerprint(modules),
        }
        candidate = registry.Candidate(
            name=job.recipe.name,
            bundle=job.path(history["export"]),
            run_id=job.run_id,
            fingerprint=job.step.fingerprint,
            kind=kind,
            card=text,
            tags=lineage,
            metrics={name: m["value"] for name, m in summaries["evaluate"]["metrics"].items()},
        )
        version = registry.register(job.settings, candidate)
        alias = "champion" if summaries["gate"]["promote"] else "challenger"
        registry.set_alias(job.settings, version.name, alias, version.version)
        return {
            "name": version.name,
            "version": version.version,
            "alias": alias,
            "kind": kind,
            "run_id": job.run_id,
            "uri": f"models:/{version.name}@{alias}",
        }

    return perform(job, work)
