"""Rows that a registered model writes, with a tiny real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import RecipeError, SourceError
from flywheel.recipe_sources import ModelSource
from flywheel.runtimes.base import Sampling
from flywheel.sources import generated as core
from infra.errors import RegistryError
from infra.registry import Candidate, register, set_alias
from infra.settings import Settings
from infra.tracking import lifecycle_run, prepare_database
from tasks import generated
from tests.tiny_decoder import Tiny, build

DRAWN = {"max_new_tokens": 6, "temperature": 0.9}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return build(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def registered(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    settings = Settings.load({"FLYWHEEL_HOME": str(home)})
    prepare_database(settings.tracking_uri)
    with lifecycle_run(settings, "tiny", "0123456789", tags={}, params={}) as run:
        candidate = Candidate("tiny", tiny.bundle, run.id, "f1", "text", "# tiny")
        set_alias(settings, "tiny", "champion", register(settings, candidate).version)
    return settings


def source(**changes: Any) -> ModelSource:
    given = {"model": "tiny", "prompts": ["The {animal}", "{n} dogs"], "count": 40, "generation": DRAWN}
    slots = {"animal": ["fox", "dog"], "n": {"min": 2, "max": 9}}
    return ModelSource.model_validate({"type": "model", "slots": slots, **given, **changes})


def test_a_registered_model_writes_rows(registered: Settings, tiny: Tiny, tmp_path: Path) -> None:
    counts = generated.acquire(registered, source(), tmp_path / "a")
    assert counts == {"rows": 40, "files": 1, "version": 1}
    rows = [json.loads(line) for line in (tmp_path / "a/rows-00000.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == list(core.prompts(source()))
    expected = tiny.decoder.stream(rows[7]["prompt"], Sampling(max_new_tokens=6, temperature=0.9, seed=7))
    assert rows[7]["completion"] == "".join(chunk.text for chunk in expected)
    assert len({row["completion"] for row in rows}) > 30
    generated.acquire(registered, source(model="tiny/1", count=10), tmp_path / "b")
    fewer = (tmp_path / "b/rows-00000.jsonl").read_text()
    assert (tmp_path / "a/rows-00000.jsonl").read_text().startswith(fewer)


def test_the_context_bounds_prompt_and_completion(registered: Settings, tmp_path: Path) -> None:
    whole = source(count=1, prompts=["x" * 100], generation={"max_new_tokens": 10_000})
    assert generated.acquire(registered, whole, tmp_path / "a")["rows"] == 1
    with pytest.raises(SourceError, match="1 to 191 tokens"):
        generated.acquire(registered, source(count=1, prompts=["x y " * 500]), tmp_path / "b")


def test_what_cannot_be_used_is_explained(registered: Settings, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="tiny/1 @champion"):
        generated.acquire(registered, source(model="tiny@other"), tmp_path / "out")
    with pytest.raises(RecipeError, match=r"the slot \{missing\}"):
        generated.acquire(registered, source(prompts=["{missing}"]), tmp_path / "out")


@pytest.mark.parametrize(
    "generation", [{"num_beams": 4}, {"top_p": 0}, {"temperature": "warm"}, {"max_new_tokens": 0}, {"top_k": -1}]
)
def test_generation_that_means_nothing_is_refused(generation: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="generation of a source"):
        core.sampling(source(generation=generation))


def test_rows_come_in_order_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def echo(prompts: Any) -> list[str]:
        asked.append(len(prompts))
        return [prompt.upper() for prompt in prompts]

    monkeypatch.setattr(core, "AT_ONCE", 16)
    rows = list(core.rows(source(), echo))
    assert asked == [16, 16, 8]
    assert rows == [{"prompt": p, "completion": p.upper()} for p in core.prompts(source())]
