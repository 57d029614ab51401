"""finetune: the second training stage, from the weights of the first, on rows of its own."""

from __future__ import annotations

from prefect import task

from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform
from tasks.trained import train_stage


@task(**policy.options("finetune"))
def finetune(job: Job, start: Reference, rows: Reference) -> Reference:
    """Fine-tune, with the recipe's adapter where it has one, merged at the end."""

    def work(step: Scope) -> Summary:
        return train_stage(job, step, "finetune", job.path(rows), job.path(start) / "model")

    return perform(job, work)
