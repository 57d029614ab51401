"""train: the first training stage, from scratch or from `model.path`."""

from __future__ import annotations

from prefect import task

from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform
from tasks.trained import train_stage


@task(**policy.options("train"))
def train(job: Job, rows: Reference) -> Reference:
    """Train; checkpoints survive a kill and the next attempt continues from the newest good one."""

    def work(step: Scope) -> Summary:
        return train_stage(job, step, "train", job.path(rows), None)

    return perform(job, work)
