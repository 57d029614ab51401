"""prepare: rows → cleaned, deduplicated training and held-out rows."""

from __future__ import annotations

from prefect import task

from infra.tracking import flat
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("prepare"))
def prepare(job: Job, rows: Reference) -> Reference:
    """Run the operations of `data.process`, then split so that no group stands on both sides."""

    def work(step: Scope) -> Summary:
        from flywheel import prepare as core

        summary = core.prepare(job.recipe, job.path(rows) / "rows.parquet", step.out)
        step.run.log_metrics(flat(summary))
        return summary

    return perform(job, work)
