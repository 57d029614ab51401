"""prepare: rows → cleaned, deduplicated training and held-out rows."""

from __future__ import annotations

from prefect import task

from flywheel import shards
from infra.tracking import flat
from tasks import policy
from tasks.scale import mapper
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("prepare"))
def prepare(job: Job, rows: Reference) -> Reference:
    """Run the operations of `data.process`, then split so that no group stands on both sides."""

    def work(step: Scope) -> Summary:
        from flywheel import prepare as core

        with mapper(job.recipe.resources) as workers:
            cache = shards.Cache(job.settings.store / ".shards")
            summary = core.prepare(job.recipe, job.path(rows) / "rows", step.out, cache, workers)
        step.run.log_metrics(flat({name: v for name, v in summary.items() if name != "sources"}))
        return summary

    return perform(job, work)
