"""evaluate: metrics with intervals on held-out rows, against baselines and against the model before each stage."""

from __future__ import annotations

from prefect import task

from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("evaluate"))
def evaluate(job: Job, rows: Reference, base: Reference, weights: Reference) -> Reference:
    """Measure the final weights, what they started from, and the baselines, on the same held-out rows."""

    def work(step: Scope) -> Summary:
        from flywheel import evaluation, pictures
        from infra.settings import variables

        stages = (job.path(base) / "model", job.path(weights) / "model")
        sitting = evaluation.Sitting(job.recipe, job.path(rows), job.settings.store / "generations", variables())
        summary = evaluation.evaluate(sitting, stages, step.out, step.progress)
        step.run.log_metrics({name: m["value"] for name, m in summary["metrics"].items()})
        step.run.log_picture(pictures.metrics(summary["metrics"]), "metrics.png")
        step.run.log_file(step.out, "evaluation")
        return summary

    return perform(job, work)
