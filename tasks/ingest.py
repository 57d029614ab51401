"""ingest: sources → one table of rows, every row that was left out counted by reason."""

from __future__ import annotations

from prefect import task

from infra.tracking import flat
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("ingest"))
def ingest(job: Job) -> Reference:
    """Read the sources into one table of rows."""

    def work(step: Scope) -> Summary:
        from flywheel.sources import base as sources

        summary = sources.ingest(job.recipe.data.sources, step.out)
        step.run.log_metrics(flat(summary))
        return summary

    return perform(job, work)
