"""train: the first training stage, from scratch or from `model.path`."""

from __future__ import annotations

from prefect import task

from tasks import policy
from tasks.curve import log_curve
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("train"))
def train(job: Job, rows: Reference) -> Reference:
    """Train; checkpoints survive a kill and the next attempt continues from the newest good one."""

    def work(step: Scope) -> Summary:
        from flywheel import training

        summary = training.train(job.recipe, "train", job.path(rows), None, step.out, step.work, step.progress)
        log_curve(step)
        return summary

    return perform(job, work)
