"""gate: metrics and thresholds → promote or not, with reasons."""

from __future__ import annotations

from prefect import task

from flywheel import gate as core
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("gate"))
def gate(job: Job, scores: Reference) -> Reference:
    """Decide whether this version may become the champion."""

    def work(step: Scope) -> Summary:
        decision = core.decide(job.recipe.objective, scores["summary"]["metrics"])
        verdict = "promoted" if decision.promote else "refused"
        step.reporter.table([{"holds": r.holds, "reason": r.text} for r in decision.reasons], verdict)
        return decision.as_dict()

    return perform(job, work)
