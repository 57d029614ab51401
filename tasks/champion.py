"""champion: the version that is served now, measured on the rows that its challenger was measured on."""

from __future__ import annotations

from prefect import task

from infra.errors import RegistryError
from tasks import policy
from tasks.shell import Job, Reference, Scope, Summary, perform


@task(**policy.options("champion"))
def champion(job: Job, rows: Reference, weights: Reference) -> Reference:
    """Fetch the champion that the plan names, and measure it; `version` is 0 where there is none."""

    def work(step: Scope) -> Summary:
        from flywheel import evaluation
        from infra import registry
        from infra.settings import variables

        rival = job.step.ingredients["registry:champion"]
        if not rival:
            return {"version": 0, "metrics": {}, "fault": ""}
        version = registry.resolve(job.settings, f"{job.recipe.name}/{rival.partition(' ')[0]}")
        try:
            bundle = registry.fetch(job.settings, version, step.work / "bundle")
        except RegistryError as error:
            return {"version": version.version, "metrics": {}, "fault": f"{error.thing}: {error.found}"}
        sitting = evaluation.Sitting(job.recipe, job.path(rows), job.settings.store / "generations", variables())
        found = evaluation.of_champion(sitting, bundle / registry.WEIGHTS, job.path(weights) / "model", step.out)
        return {"version": version.version, **found}

    return perform(job, work)
