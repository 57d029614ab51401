"""The same rows, whoever works on the shards: processes, tasks that Prefect maps, Dask or Ray, each for real."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from flywheel import prepare as preparing
from flywheel.artifact import sha256
from flywheel.recipe import Recipe, Resources
from flywheel.shards import Cache
from flywheel.sources import base
from flywheel.workers import Request
from infra.errors import SettingsError
from tasks.scale import mapper

CLUSTERS = ["prefect", "dask", pytest.param("ray", marks=pytest.mark.slow)]
FILES, ROWS = 6, 40


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go: a short path, as sockets need."""
    path = Path(tempfile.mkdtemp(prefix="fw-"))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    corpus = tmp_path_factory.mktemp("corpus")
    for number in range(FILES):
        said = [f"row {n % 30} of {number % 5} " + " ".join(f"w{n * k % 97}" for k in range(12)) for n in range(ROWS)]
        (corpus / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in said))
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {
                "sources": [{"type": "files", "path": str(corpus)}],
                "process": ["normalize_whitespace", "exact_dedup", "near_dedup"],
                "split": {"by": "id"},
            },
            "model": {"modality": "text_causal"},
        }
    )


@task
def work(recipe: Recipe, resources: Resources, out: Path) -> dict[str, Any]:
    """What the tasks `ingest` and `prepare` do, and who listens on which address meanwhile."""
    cache = Cache(out / "shards")
    with mapper(resources) as workers:
        read = base.ingest(base.Ingest(recipe.data.sources, {}, cache, workers), out / "read")
    with mapper(resources) as workers:
        made = preparing.prepare(recipe, out / "read" / "rows", out / "made", cache, workers)
        assert [a.fault for a in workers([Request("operator:neg", "no number")])] == ["error"]
        return {"read": read, "made": made, "listening": listening()}


def listening() -> set[str]:
    """Addresses at which this process and its children take connections."""
    me = psutil.Process()
    found = [c for p in (me, *me.children(recursive=True)) for c in p.net_connections() if c.status == "LISTEN"]
    return {c.laddr.ip.removeprefix("::ffff:") for c in found}


def run(recipe: Recipe, resources: Resources, out: Path) -> dict[str, Any]:
    for name in ("read", "made"):
        (out / name).mkdir(parents=True)

    @flow
    def wheel() -> dict[str, Any]:
        return work(recipe, resources, out)

    return wheel()


def made(out: Path) -> dict[str, str]:
    """Every file that was made, with its sha256."""
    return {str(p.relative_to(out)): sha256(p) for p in sorted(out.glob("[rm]*/**/*")) if p.is_file()}


@pytest.fixture(scope="module")
def expected(server: None, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, str]]:
    out = tmp_path_factory.mktemp("processes")
    found = run(recipe, Resources(workers=2), out)
    return (found["read"], found["made"]), made(out)


@pytest.mark.parametrize("runner", CLUSTERS)
def test_every_runner_makes_the_same_rows_and_leaves_nothing_behind(
    runner: Any, recipe: Recipe, expected: Any, tmp_path: Path, temporary: Path
) -> None:
    before = set(psutil.Process().children(recursive=True))
    found = run(recipe, Resources(runner=runner, workers=2), tmp_path)
    assert ((found["read"], found["made"]), made(tmp_path)) == expected
    assert expected[0][1]["dropped"].keys() == {"exact_duplicate"}
    assert found["listening"] <= {"127.0.0.1"}
    left = set(psutil.Process().children(recursive=True)) - before
    # Python ends the tracker of multiprocessing with the process that used it.
    assert [p.cmdline() for p in left if "resource_tracker" not in " ".join(p.cmdline())] == []
    assert list(temporary.iterdir()) == []
    assert list((tmp_path / "shards").glob(".*")) == []


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_cluster_whose_package_is_missing(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in (runner, f"prefect_{runner}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, f"prefect_{runner}", None)
    with (
        pytest.raises(SettingsError, match=rf"resources\.runner: {runner}(.|\n)*flywheel-mlops\[{runner}\]"),
        mapper(Resources(runner=runner)),
    ):
        pass
