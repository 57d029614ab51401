"""validate: expectations on the prepared rows; failing rows are quarantined, a failing suite stops the run."""

from __future__ import annotations

from prefect import task

from flywheel.artifact import sha256
from flywheel.modalities.rooms import room
from infra.tracking import flat
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("validate"))
def validate(job: Job, rows: Reference) -> Reference:
    """Check `data.validate` with Great Expectations and keep its Data Docs."""

    def work(step: Scope) -> Summary:
        from flywheel import validation
        from infra import expectations

        data = job.recipe.data
        frame = validation.facts(room(job.recipe.model.modality), job.path(rows), data.split.by)
        outcome = expectations.check(frame, data.validate_.expectations, job.recipe.name, step.out / "docs")
        step.run.log_file(step.out / "docs", "data-docs")  # kept also when the suite fails below
        summary = validation.apply(job.path(rows), outcome, data.validate_, step.out)
        step.run.log_metrics(flat(summary))
        train, heldout = step.out / "train.parquet", step.out / "heldout.parquet"
        step.run.log_dataset(f"{job.recipe.name}-train", train, sha256(train), "training")
        step.run.log_dataset(f"{job.recipe.name}-heldout", heldout, sha256(heldout), "evaluation")
        return summary

    return perform(job, work)
