"""A person decides whether a candidate becomes the champion: a form in Prefect's UI, which waits for them."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows import models


class Approval(RunInput):
    """The decision on a candidate."""

    approve: bool = Field(
        description="Yes: the version becomes @champion at once and is served. No: the champion stays, the version "
        "loses @candidate; the gate does not put these weights forward again."
    )
    reason: str = Field(default="", description="Why; kept in the history of the model, for whoever asks later.")
    by: str = Field(default="", description="Your name, for the history. Empty: a person in Prefect.")


@flow(name="promote", persist_result=False)
def promote(model: str) -> dict[str, Any]:
    """Wait for a person's decision on a version that the gate has admitted, and carry it out.

    The run is suspended meanwhile: no process waits. It goes on from the top when it is resumed. An approval is refused
    where the champion is no longer the one that the version was compared with; a "no", where the version is the
    champion by now.

    Args:
        model: The version, as NAME/VERSION.
    """
    question = models.question(model)
    create_markdown_artifact(question, key="approval", description=model)
    answer = suspend_flow_run(wait_for_input=Approval.with_initial_data(description=question), key="approval")
    return models.decide(model, approve=answer.approve, by=answer.by or "a person in Prefect", reason=answer.reason)
