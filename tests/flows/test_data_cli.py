"""`flywheel data ...` as a user meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from flywheel import feedback
from tests.e2e.conftest import environment
from tests.e2e.sources import local
from tests.flywheel.sources.web_server import Answer, serve
from tests.recipes import code_files, code_recipe, write

FLYWHEEL = [sys.executable, "-m", "flows.cli"]
ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data-cli")


@pytest.fixture(scope="module")
def flywheel(place: Path) -> Run:
    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        variables = environment(place / "home", COLUMNS="100", **more)
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        command = [*FLYWHEEL, "data", *map(str, arguments)]
        return subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, check=False)

    return run


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# ---------------------------------------------------------------- preview


def test_preview_for_people(flywheel: Run, place: Path) -> None:
    local.reviews(place / "reviews.csv")
    done = flywheel("preview", "reviews.csv")
    assert done.returncode == 0
    assert "say `columns" in " ".join(done.stdout.split())
    done = flywheel("preview", "{type: files, path: reviews.csv, columns: {text: review}}")
    assert re.search(r"^reviews\.csv:2\n  text  ", done.stdout, re.MULTILINE)
    assert re.search(r"^read +24 rows", done.stdout, re.MULTILINE)
    assert re.search(r"^left out +undecodable 1 +reviews\.csv:5", done.stdout, re.MULTILINE)
    assert "in a recipe  - {type: files, path: reviews.csv, columns: {text: review}}" in done.stdout
    assert done.stderr == ""


def test_preview_does_not_let_data_talk_to_the_terminal(flywheel: Run, place: Path) -> None:
    (place / "evil.csv").write_text("text\n\x1b[2J\x1b]0;owned\x07 [red]red[/] \u202eback\n")
    done = flywheel("preview", "evil.csv")
    assert done.returncode == 0
    assert not set(done.stdout) & set("\x1b\x07\u202e")
    assert r"\x1b[2J" in done.stdout
    assert r"[red]red[/] \u202eback" in done.stdout


def test_preview_as_json_leaves_nothing_behind(flywheel: Run, place: Path) -> None:
    local.notes(place / "notes.sqlite")
    query = "select body as text from notes order by id"
    before = sorted(place.iterdir())
    found = seen(flywheel("preview", f"{{type: sql, url: 'sqlite:///notes.sqlite', query: '{query}'}}", "--json"))
    assert (found["read"], found["kept"], found["row_type"]) == (15, 12, {"text": 12})
    assert {reason: left["rows"] for reason, left in found["left_out"].items()} == {"empty": 2, "undecodable": 1}
    assert found["source"] == {"type": "sql", "url": "sqlite:///notes.sqlite", "query": query}
    assert sorted(place.iterdir()) == before


def test_preview_asks_a_server_for_little_and_only_where_that_is_allowed(flywheel: Run) -> None:
    with serve() as server:
        for page in range(1, 9):
            server.routes[f"/rows?page={page}"] = Answer(json.dumps([{"text": f"row {page}"}]))
        source = f"{{type: rest, url: '{server.url}/rows', pagination: {{style: page}}}}"
        found = seen(flywheel("preview", source, "--json", FLYWHEEL_ALLOWED_HOSTS=server.address))
        assert [row["text"] for row in found["rows"]] == ["row 1", "row 2"]
        assert server.paths == ["/rows?page=1", "/rows?page=2"]
        refused = flywheel("preview", source)
        assert (refused.returncode, "FLYWHEEL_ALLOWED_HOSTS" in refused.stderr) == (2, True)
        assert len(server.paths) == 2


def test_preview_of_feedback(flywheel: Run, place: Path) -> None:
    said = {"model": "writer", "prompt": "Why?", "completion": "Because.", "rating": "up", "received": 1.0}
    feedback.append(place / "home" / "feedback", said)
    found = seen(flywheel("preview", "{type: feedback, model: writer}", "--json"))
    assert (found["read"], found["row_type"]) == (1, {"prompt_completion": 1})


def test_preview_of_a_bucket(flywheel: Run, s3: dict[str, str]) -> None:
    client = boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"], config=Config(s3={"addressing_style": "path"}))
    client.create_bucket(Bucket="preview-bucket")
    for number in range(60):
        client.put_object(Bucket="preview-bucket", Key=f"notes/{number:02}.txt", Body=f"note {number}".encode())
    found = seen(flywheel("preview", "s3://preview-bucket/notes", "--json"))
    assert (found["read"], found["kept"], found["rows"][0]["text"]) == (50, 50, "note 0")
    for absent in ("s3://preview-bucket/elsewhere", "s3://no-such-bucket/notes"):
        assert flywheel("preview", absent).returncode == 2


@pytest.mark.parametrize("source", ["nowhere.csv", "{type: sql}", "{type: files, path: nowhere}"])
def test_a_source_that_is_not_there_exits_with_2(flywheel: Run, source: str) -> None:
    done = flywheel("preview", source)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected:" in done.stderr


# ---------------------------------------------------------------- check


@pytest.fixture(scope="module")
def recipe(place: Path) -> Path:
    source = code_files(place / "src", 6)
    (source / "module0" / "torn.py").write_bytes(b"x = '\xe9'\n")
    return write(place / "check.yaml", code_recipe(source))


@pytest.fixture(scope="module")
def report(flywheel: Run, recipe: Path) -> dict[str, Any]:
    return seen(flywheel("check", recipe, "--json"))


def test_check_counts_by_source_and_in_total(report: dict[str, Any]) -> None:
    assert (report["read"], report["kept"], report["quarantined"]) == (13, 12, {"undecodable": 1})
    assert report["sources"] == {"src": {name: report[name] for name in ("read", "kept", "dropped", "quarantined")}}
    assert [(s["name"], s["cached"]) for s in report["steps"]] == [
        ("ingest", False),
        ("prepare", False),
        ("validate", False),
    ]


def test_a_second_check_hits_and_is_shown_to_people(report: dict[str, Any], flywheel: Run, recipe: Path) -> None:
    done = flywheel("check", recipe)
    assert (done.returncode, done.stderr) == (0, "tiny-coder: every step is up to date, nothing to do\n")
    assert re.search(r"^src +13 +12 +1 undecodable", done.stdout, re.MULTILINE)
    assert re.search(r"^all +13 +12 +1 undecodable", done.stdout, re.MULTILINE)
    again = seen(flywheel("check", recipe, "--json"))
    assert all(step["cached"] for step in again["steps"])
    assert {**again, "steps": 0, "seconds": 0} == {**report, "steps": 0, "seconds": 0}


def test_rows_of_a_checked_recipe_are_labelled(
    report: dict[str, Any], flywheel: Run, recipe: Path, place: Path
) -> None:
    done = flywheel("label", recipe, "--output", "batch.csv", "--count", 5)
    assert (done.returncode, "wrote 5 rows" in done.stderr) == (0, True)
    assert len((place / "batch.csv").read_text().splitlines()) >= 6
    unchecked = flywheel("label", write(place / "other.yaml", code_recipe(place / "src", seed=9)), "-o", "b.csv")
    assert (unchecked.returncode, "data check" in unchecked.stderr) == (2, True)


@pytest.mark.parametrize(
    "override", ["data.process=[exact_dedupe]", "data.sources.0.type=cod", "data.sources.0.path=nowhere"]
)
def test_what_is_wrong_is_found_before_anything_runs(flywheel: Run, recipe: Path, override: str) -> None:
    done = flywheel("check", recipe, override)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean" in done.stderr or "nowhere" in done.stderr
