"""features: vectors of the training and held-out rows, and the vectoriser that made them."""

from __future__ import annotations

from prefect import task

from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("features"))
def features(job: Job, rows: Reference) -> Reference:
    """Fit the vectoriser of `features` to the training rows, and keep it with the vectors of all rows."""

    def work(step: Scope) -> Summary:
        from flywheel.features import extract

        assert job.recipe.features is not None  # else the wheel has no such step
        return extract.features(job.recipe.features, job.path(rows), step.out)

    return perform(job, work)
