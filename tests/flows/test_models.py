"""`flywheel models`, `promote`, `rollback` and `diff`, and a person who decides in Prefect's UI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from flows.cli import app
from infra import registry
from infra.prefect_server import Temporary
from infra.promotion import history
from infra.settings import Settings
from infra.tracking import prepare_database
from tests.turns import Turns


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turns]:
    """Version 1 is the champion; 2 is better, and 3 was refused."""
    root = tmp_path_factory.mktemp("models")
    settings = Settings.load({"FLYWHEEL_HOME": str(root / "home")})
    prepare_database(settings.tracking_uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWHEEL_HOME", str(settings.home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        turns = Turns(settings, root)
        turns.turn(5)
        turns.turn(6, bits=1.2)
        turns.turn(7, bits=1.9, admitted=False)
        yield turns


def flywheel(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def as_json(*arguments: str) -> Any:
    return json.loads(flywheel(*arguments, "--json"))


def test_versions_are_listed_with_their_figures(turns: Turns) -> None:
    (model,) = as_json("models", "tiny")["models"]
    assert [(v["version"], v["aliases"]) for v in model["versions"]] == [
        (3, ["challenger"]),
        (2, ["champion"]),
        (1, []),
    ]
    assert model["versions"][1]["objective"]["value"] == 1.2
    assert model["versions"][1]["promoted"]["by"] == "gate"
    shown = flywheel("models")
    assert "bits_per_byte 1.2 [1.1, 1.3] bits/byte" in shown
    assert "promoted by gate on" in shown


def test_a_model_that_is_not_there(turns: Turns) -> None:
    with pytest.raises(registry.RegistryError, match="nobody"):
        CliRunner().invoke(app, ["models", "nobody"], catch_exceptions=False)


def test_what_differs_between_two_versions(turns: Turns) -> None:
    found = as_json("diff", "tiny/1", "tiny@challenger")
    assert found["recipe"] == ["train.max_steps: 5 → 7"]
    assert [m["value"] for m in found["metrics"]["bits_per_byte"]] == [1.5, 1.9]
    assert (found["data"], found["packages"], found["missing"]) == ([], {}, [])
    shown = flywheel("diff", "tiny/1", "tiny@challenger")
    assert "tiny/1 → tiny/3 @challenger" in shown
    assert "1.5 [1.4, 1.6]" in shown


def test_promote_and_rollback_from_the_command_line(turns: Turns) -> None:
    done = as_json("promote", "tiny/3", "--reason", "a try")
    assert (done["version"], done["over"], done["reason"]) == (3, 2, "a try")
    shown = flywheel("rollback", "tiny", "--reason", "worse")
    assert "tiny version 2 is @champion instead of version 3" in shown
    story = flywheel("models", "tiny")
    assert "rolled back: worse" in story
    assert "@champion 3 → 2" in story


# ---------------------------------------------------------------- a person in Prefect's UI


class Prefect:
    """A real server that knows the deployment `promote/promote`; its worker is this process."""

    def __init__(self, settings: Settings) -> None:
        self.server = Temporary(settings)
        self.api = self.server.ready()
        os.environ["PREFECT_API_URL"] = self.api

    def deploy(self) -> None:
        from prefect.client.orchestration import get_client

        from flows.promote import promote

        with get_client(sync_client=True) as client:
            client.create_deployment(
                client.create_flow(promote), "promote", parameter_openapi_schema={"type": "object", "properties": {}}
            )

    def runs(self) -> list[Any]:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            return client.read_flow_runs()

    def work(self, run: Any) -> Any:
        """What a worker does with a run; the run as it is then."""
        from prefect.client.orchestration import get_client
        from prefect.exceptions import Pause
        from prefect.flow_engine import run_flow

        from flows.promote import promote

        with get_client(sync_client=True) as client:
            given = client.read_flow_run(run.id)
            with suppress(Pause):
                run_flow(promote, flow_run=given, parameters=given.parameters, return_type="state")
            return client.read_flow_run(run.id)

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(f"{self.api}/{path}", json=body, timeout=60)


@pytest.fixture(scope="module")
def prefect(turns: Turns) -> Iterator[Prefect]:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    before = os.environ.get("PREFECT_API_URL")
    place = Prefect(turns.settings)
    try:
        with temporary_settings({PREFECT_API_URL: place.api}):
            place.deploy()
            yield place
    finally:
        APILogWorker.drain_all(timeout=10)
        EventsWorker.drain_all(timeout=10)
        place.server.stop()
        os.environ.pop("PREFECT_API_URL") if before is None else os.environ.update(PREFECT_API_URL=before)


def waiting(turns: Turns, prefect: Prefect, steps: int) -> tuple[int, Any]:
    """A candidate, and the run that waits for the decision on it."""
    made = turns.turn(steps, approval=True)
    assert (made["alias"], f"flywheel promote tiny/{made['version']}" in made["note"]) == ("candidate", True)
    (run,) = [r for r in prefect.runs() if r.parameters == {"model": f"tiny/{made['version']}"}]
    assert run.name in made["note"]
    suspended = prefect.work(run)
    assert suspended.state.name == "Suspended"
    return made["version"], suspended


def test_the_form_explains_itself(turns: Turns, prefect: Prefect) -> None:
    version, run = waiting(turns, prefect, 8)
    keys = run.state.state_details.run_input_keyset
    schema = httpx.get(f"{prefect.api}/flow_runs/{run.id}/input/{keys['schema']}", timeout=60).json()
    assert all(field["description"] for field in schema["properties"].values())
    assert schema["required"] == ["approve"]
    told = httpx.get(f"{prefect.api}/flow_runs/{run.id}/input/{keys['description']}", timeout=60).text
    assert f"Shall **tiny/{version}** become the champion of tiny, instead of version 2?" in told
    assert "bits_per_byte is 1.5" in told
    empty = prefect.post(f"flow_runs/{run.id}/resume", {"run_input": {"reason": "?"}})
    assert (empty.status_code, empty.json()["status"]) == (200, "REJECT")


def test_an_approval_moves_the_alias(turns: Turns, prefect: Prefect) -> None:
    version, run = waiting(turns, prefect, 9)
    answer = {"approve": True, "reason": "reads well", "by": "ann"}
    assert prefect.post(f"flow_runs/{run.id}/resume", {"run_input": answer}).status_code == 201
    assert prefect.work(run).state.name == "Completed"
    assert registry.resolve(turns.settings, "tiny").version == version
    last = history(turns.settings, "tiny", "champion")[-1]
    assert (last.by, last.reason, last.over) == ("ann", "reads well", 2)
    assert set(turns.misses(9, approval=True)) == {"register", "deploy"}
    assert turns.turn(9, approval=True)["alias"] == "champion"


def test_a_refusal_leaves_the_champion_and_keeps_the_reason(turns: Turns, prefect: Prefect) -> None:
    before = registry.resolve(turns.settings, "tiny").version
    version, run = waiting(turns, prefect, 10)
    assert prefect.post(f"flow_runs/{run.id}/resume", {"run_input": {"approve": False, "reason": "rude"}}).is_success
    assert prefect.work(run).state.name == "Completed"
    assert registry.resolve(turns.settings, "tiny").version == before
    (model,) = as_json("models", "tiny")["models"]
    declined = next(v for v in model["versions"] if v["version"] == version)
    assert (declined["aliases"], declined["declined"]) == ([], "rude")


def test_an_approval_that_comes_too_late_is_refused(turns: Turns, prefect: Prefect) -> None:
    _, run = waiting(turns, prefect, 11)
    champion = registry.resolve(turns.settings, "tiny").version
    flywheel("promote", "tiny/1")
    assert "already: nothing moved" in flywheel("promote", "tiny/1")
    assert prefect.post(f"flow_runs/{run.id}/resume", {"run_input": {"approve": True}}).status_code == 201
    late = prefect.work(run)
    assert late.state.name == "Failed"
    assert f"compared with version {champion}, and the champion is version 1 by now" in late.state.message
