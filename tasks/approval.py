"""Asking a person: a run of the flow `promote`, which waits in Prefect's UI with a form, for each candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.registry import Version

DEPLOYMENT = "promote/promote"


def ask(version: Version) -> str:
    """Start the run that waits for the decision on a version, once. Returns its name; nothing where the Prefect server
    does not know the deployment, as the one that a single `flywheel run` starts for itself."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    try:
        run = run_deployment(
            DEPLOYMENT,
            parameters={"model": str(version)},
            timeout=0,
            as_subflow=False,
            flow_run_name=f"approve {version}",
            idempotency_key=f"approve-{version}-{version.created}",
        )
    except ObjectNotFound:
        return ""
    assert isinstance(run, FlowRun)  # in a synchronous task Prefect's dual functions return their value
    return run.name
