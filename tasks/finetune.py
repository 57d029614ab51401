"""finetune: the second training stage, from the weights of the first, on rows of its own."""

from __future__ import annotations

from prefect import task

from tasks import policy
from tasks.curve import log_curve
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("finetune"))
def finetune(job: Job, start: Reference, rows: Reference) -> Reference:
    """Fine-tune, with the recipe's adapter where it has one, merged at the end."""

    def work(step: Scope) -> Summary:
        from flywheel import training

        model = job.path(start) / "model"
        summary = training.train(job.recipe, "finetune", job.path(rows), model, step.out, step.work, step.progress)
        log_curve(step)
        return summary

    return perform(job, work)
