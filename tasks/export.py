"""export: weights → ONNX in every precision that can be proven equal, or nearly so."""

from __future__ import annotations

from prefect import task

from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("export"))
def export(job: Job, weights: Reference, rows: Reference) -> Reference:
    """Export, compare with torch, and keep the precisions that hold."""

    def work(step: Scope) -> Summary:
        from flywheel import export as core

        summary = core.export(job.recipe, job.path(weights) / "model", job.path(rows), step.out)
        step.reporter.table(summary["precisions"], f"default precision: {summary['default']}")
        return summary

    return perform(job, work)
