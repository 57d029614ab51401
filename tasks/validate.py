"""validate: expectations on the prepared rows; failing rows are quarantined, a failing suite stops the run."""

from __future__ import annotations

from prefect import task

from flywheel import artifact
from flywheel.artifact import sha256
from flywheel.modalities.rooms import room
from infra.tracking import flat
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("validate"))
def validate(job: Job, rows: Reference) -> Reference:
    """Check `data.validate` with Great Expectations; keep its Data Docs and the dataset card."""

    def work(step: Scope) -> Summary:
        from flywheel import facts, validation
        from infra import expectations

        data, model = job.recipe.data, job.recipe.model
        suite = data.validate_.expectations
        frame = validation.facts(
            room(model.modality),
            job.path(rows),
            data.split.by,
            expectations.columns(suite),
            facts.token_counter(getattr(model, "path", None)) if "tokens" in expectations.columns(suite) else None,
        )
        outcome = expectations.check(frame, suite, job.recipe.name, step.out / "docs", frame.attrs["columns"])
        step.run.log_file(step.out / "docs", "data-docs")  # kept also when the suite fails below
        summary = validation.apply(job.path(rows), outcome, data.validate_, step.out, validation.faults(job.recipe))
        step.run.log_metrics(flat({name: v for name, v in summary.items() if name != "sources"}))
        _write_card(job, rows, summary, step)
        train, heldout = step.out / "train.parquet", step.out / "heldout.parquet"
        step.run.log_dataset(f"{job.recipe.name}-train", train, sha256(train), "training")
        step.run.log_dataset(f"{job.recipe.name}-heldout", heldout, sha256(heldout), "evaluation")
        return summary

    return perform(job, work)


def _write_card(job: Job, rows: Reference, summary: Summary, step: Scope) -> None:
    """The dataset card, from what the steps counted and what the training rows are."""
    from flywheel import datacard
    from flywheel.record import read_rows

    store = job.settings.store
    mark = artifact.load(job.path(rows)).ingredients["parent:ingest"]
    ingest = artifact.load(artifact.location(store, "ingest", mark)).summary
    code = {name for name, count in ingest["sources"].items() if count["type"] == "code"}
    slices = datacard.slices(read_rows(step.out / "train.parquet"), summary["rows"]["train"], code)
    found = datacard.DataFacts(
        name=job.recipe.name,
        process=tuple(job.recipe.data.process),
        ingest=ingest,
        prepare=rows["summary"],
        validate=summary,
        train=slices,
    )
    (step.out / "DATACARD.md").write_text(datacard.card(found))
    step.run.log_file(step.out / "DATACARD.md", "data-docs")
