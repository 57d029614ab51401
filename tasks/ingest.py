"""ingest: sources → shards of rows, every row that was left out counted by reason and source."""

from __future__ import annotations

from prefect import task

from flywheel import shards
from flywheel.sources import snapshots, tombstones
from infra.tracking import flat
from tasks import policy
from tasks.scale import mapper
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("ingest"))
def ingest(job: Job) -> Reference:
    """Read the sources; files that were read before with the same options are not read again."""

    def work(step: Scope) -> Summary:
        from flywheel.sources import base

        wanted, store = job.recipe.data.sources, job.settings.store
        with mapper(job.recipe.resources) as workers:
            forgotten = tombstones.load(store)
            cache = shards.Cache(store / ".shards")
            summary = base.ingest(
                base.Ingest(wanted, snapshots.roots(store, wanted), cache, workers, forgotten), step.out
            )
        step.run.log_metrics(flat({name: v for name, v in summary.items() if name != "sources"}))
        return summary

    return perform(job, work)
