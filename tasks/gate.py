"""gate: what was measured, the thresholds and the champion → promote or not, with reasons."""

from __future__ import annotations

from prefect import task

from flywheel import gate as core
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("gate"))
def gate(job: Job, measured: dict[str, Reference]) -> Reference:
    """Decide whether this version may become the champion; `measured` holds the steps that measured something."""

    def work(step: Scope) -> Summary:
        from flywheel import judgement

        paths = {name: job.path(reference) for name, reference in measured.items()}
        summaries = {name: reference["summary"] for name, reference in measured.items()}
        rival = judgement.rival(job.recipe, summaries["champion"], (paths["evaluate"], paths["champion"]))
        decision = core.decide(job.recipe.objective, judgement.measured(summaries), rival)
        verdict = "promoted" if decision.promote else "refused"
        rows = [{"holds": r.holds, "metric": r.metric, "reason": r.text} for r in decision.reasons]
        step.reporter.table(rows, verdict)
        step.run.log_table(rows, "gate.json")
        comparisons = [] if rival is None else [c.as_dict() for c in rival.comparisons]
        return {**decision.as_dict(), "champion": summaries["champion"]["version"], "comparisons": comparisons}

    return perform(job, work)
