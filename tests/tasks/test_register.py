"""What a version holds, and the alias that it gets: by the gate, and by people before and after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from flywheel.runtimes.bundle import open_bundle
from infra import promotion, registry
from infra.errors import RegistryError
from infra.settings import Settings
from infra.tracking import lifecycle_run, prepare_database
from infra.versions import CANDIDATE, OBJECTIVE, OVER
from tests.tiny_decoder import build
from tests.turns import Turns

REFUSED = "the gate refused this version"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    prepare_database(f"sqlite:///{path}")
    return path


@pytest.fixture
def turns(tmp_path: Path, database: Path) -> Turns:
    settings = Settings.load({"FLYWHEEL_HOME": str(tmp_path / "home")})
    settings.home.mkdir()
    shutil.copy(database, settings.home / "mlflow.db")
    return Turns(settings, tmp_path)


def place(turns: Turns, version: int) -> tuple[str, ...]:
    return registry.resolve(turns.settings, f"tiny/{version}").aliases


def test_a_version_holds_everything_that_it_was_made_from(turns: Turns, tmp_path: Path) -> None:
    made = turns.turn(5)
    assert (made["version"], made["alias"], made["note"]) == (1, "champion", "")
    version = registry.resolve(turns.settings, "tiny")
    directory = registry.fetch(turns.settings, version, tmp_path / "unused")
    names = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
    papers = {"recipe.yaml", "datasets.json", "evaluation.json", "requirements.lock", "sbom.cdx.json", "README.md"}
    assert names >= papers | {"MLmodel", "MANIFEST.json", "manifest.json", "fp32/model.onnx"}
    assert names >= {"weights/model.safetensors", "weights/tokenizer.json"}
    assert not any(path.is_symlink() for path in directory.rglob("*"))
    assert yaml.safe_load((directory / "recipe.yaml").read_text())["train"]["max_steps"] == 5
    assert json.loads((directory / "evaluation.json").read_text())["gate"]["promote"]
    measured = {
        "metric": "bits_per_byte",
        "value": 1.5,
        "low": 1.4,
        "high": 1.6,
        "better": "lower",
        "unit": "bits/byte",
    }
    assert json.loads(version.tags[OBJECTIVE]) == measured
    assert turns.misses(5) == {}


def test_a_file_is_read_by_itself_and_verified(turns: Turns, tmp_path: Path) -> None:
    turns.turn(5)
    version = registry.resolve(turns.settings, "tiny")
    found = registry.read(turns.settings, version, ["datasets.json", "absent.json"])
    assert list(found) == ["datasets.json"]
    directory = registry.fetch(turns.settings, version, tmp_path / "unused")
    (directory / "datasets.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"datasets\.json changed"):
        registry.read(turns.settings, version, ["datasets.json"])


def test_a_refused_version_is_the_challenger_and_a_person_may_promote_it(turns: Turns) -> None:
    turns.turn(5)
    made = turns.turn(6, admitted=False)
    assert (made["alias"], made["note"]) == ("challenger", REFUSED)
    assert turns.misses(6) == {}
    promotion.promote(turns.settings, "tiny", 2, by="ann", reason="")
    assert turns.misses(6)["register"] == "registry: version 2 is @champion by now"
    assert turns.turn(6, admitted=False)["alias"] == "champion"
    assert turns.misses(6) == {}
    assert [(m.version, m.by) for m in promotion.history(turns.settings, "tiny", "champion")] == [
        (1, "gate"),
        (2, "ann"),
    ]


def test_a_rolled_back_version_does_not_come_back_by_itself(turns: Turns) -> None:
    turns.turn(5)
    turns.turn(6)
    assert registry.resolve(turns.settings, "tiny/2").tags[OVER] == "1"
    promotion.rollback(turns.settings, "tiny", by="ann", reason="rude")
    assert turns.misses(5) == {}
    assert turns.misses(6)["register"] == "registry: @champion is version 1"
    made = turns.turn(6)
    assert (made["version"], made["alias"]) == (2, "challenger")
    assert made["note"] == "version 2 with these weights was rolled back: rude"
    assert (place(turns, 1), turns.misses(6)) == (("champion",), {})
    promotion.promote(turns.settings, "tiny", 2, by="ann", reason="polite by now")
    assert turns.turn(6)["alias"] == "champion"
    assert turns.misses(6) == {}


def test_an_earlier_recipe_is_compared_with_the_champion_of_now(turns: Turns) -> None:
    turns.turn(5)
    turns.turn(6)
    assert {"champion", "gate", "register"} <= turns.misses(5).keys()
    made = turns.turn(5)
    assert (made["version"], registry.resolve(turns.settings, "tiny/3").tags[OVER]) == (3, "2")


def test_a_champion_that_changed_since_the_plan_stops_the_run(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    turns.turn(5)
    turns.turn(6, admitted=False)
    made = registry.register

    def meanwhile(*args: object) -> object:
        promotion.promote(turns.settings, "tiny", 2, by="ann", reason="")
        return made(*args)

    monkeypatch.setattr(registry, "register", meanwhile)
    with pytest.raises(RegistryError, match="compared with version 1, and the champion is version 2 by now"):
        turns.turn(7)


def test_a_bundle_is_served_with_weights_beside_it_and_without(turns: Turns, tmp_path: Path) -> None:
    """Older versions have none."""
    build(tmp_path / "bundle")
    settings = turns.settings
    for number, weights in ((1, None), (2, tmp_path / "bundle" / "fp32")):
        with lifecycle_run(settings, "tiny", f"{number:010}", tags={}, params={}) as run:
            made = registry.Candidate("tiny", tmp_path / "bundle", run.id, f"f{number}", "text", "", weights=weights)
            directory = registry.fetch(settings, registry.register(settings, made), tmp_path / "unused")
        assert (directory / "weights").exists() == (weights is not None)
        assert open_bundle(directory).kind == "text"


def test_approval_makes_a_candidate_until_a_person_decides(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.approval.ask", lambda version: "")  # no Prefect server here; see tests/flows
    turns.turn(5)
    made = turns.turn(6, approval=True)
    assert (made["alias"], made["note"]) == (CANDIDATE, "awaiting approval: flywheel promote tiny/2")
    assert (place(turns, 1), turns.misses(6, approval=True)) == (("champion",), {})
    promotion.promote(turns.settings, "tiny", 2, by="ann", reason="good")
    assert turns.turn(6, approval=True)["alias"] == "champion"
    assert turns.misses(6, approval=True) == {}
    turns.turn(7, approval=True)
    promotion.decline(turns.settings, "tiny", 3, by="ann", reason="rude")
    made = turns.turn(7, approval=True)
    assert (made["alias"], made["note"]) == ("challenger", "version 3 with these weights was declined: rude")
