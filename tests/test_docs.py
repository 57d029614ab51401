"""The pages under docs name what is there."""

import inspect
import re
import string
from pathlib import Path

import pytest
import yaml

from flywheel.metrics.table import METRICS
from flywheel.modalities.rooms import ROOMS
from flywheel.process.table import OPERATIONS
from flywheel.recipe import Objective, Recipe
from flywheel.sources.base import READERS
from flywheel.steps import wheel
from infra import settings
from serving.app import create_app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
INTERNAL = "`thin` `repeat`"  # written for a source's weight
FILE = re.compile(r"(?<![\w./-])((?:[\w-]+/)+[\w.-]+\.(?:py|yaml|toml|md|sql|env))(?![\w/])")


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


@pytest.mark.parametrize("file", PAGES, ids=lambda f: f.name)
def test_relative_links_exist(file):
    for target in re.findall(r"\]\(([^)#]+)", file.read_text()):
        assert target.startswith("https://") or (file.parent / target).exists(), target


@pytest.mark.parametrize("file", PAGES, ids=lambda f: f.name)
def test_files_that_are_named_exist(file):
    named = {name for name in FILE.findall(file.read_text()) if not name.startswith("stdlib/")}
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_each_step_has_a_page():
    names = {step.name for step in wheel(Recipe.model_construct(finetune=None))} | {"serve"}
    assert {name for name in names if not (DOCS / f"{name}.md").exists()} == set()


def test_each_key_of_a_recipe_is_in_the_table():
    assert {key for key in Recipe.model_fields if f"`{key}" not in page("recipe")} == set()


def test_sources_and_operations_are_told():
    assert {name for name in READERS if f"| `{name}` |" not in page("sources")} == set()
    assert {name for name in OPERATIONS if f"`{name}`" not in page("prepare") + INTERNAL} == set()


def test_metrics_of_each_room_are_told():
    for name, entry in ROOMS.items():
        assert f"`{name}`" in page("evaluate")
        assert {metric for metric in entry.metrics if f"`{metric}`" not in page("evaluate")} == set()


def test_further_metrics_and_their_arguments_are_told():
    lines = {line.split("|")[1].strip(): line for line in page("evaluate").splitlines() if line.startswith("| `")}
    for name, entry in METRICS.items():
        arguments = list(inspect.signature(entry.function(name)).parameters)[1:]
        assert [a for a in arguments if f"`{a}" not in lines[f"`{name}`"]] == [], name


def test_the_gate_page_shows_an_objective():
    (block,) = re.findall(r"```yaml\n(.*?)```", page("gate"), re.DOTALL)
    Objective.model_validate(yaml.safe_load(block)["objective"])


def test_routes_are_those_of_the_server():
    shown = set(re.findall(r"`((?:GET|POST) /\S+)`", page("serve"))) - {"GET /openapi.json"}
    paths = create_app({}).openapi()["paths"]
    assert shown == {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}


def test_settings_are_those_that_are_read():
    told = {line.split("|")[1].strip() for line in settings.__doc__.splitlines() if line.startswith("| ")} - {
        "variable"
    }
    assert {name for name in told if f"| `{name}` |" not in page("operate")} == set()


def test_decisions_are_numbered_and_complete():
    records = sorted((DOCS / "decisions").glob("*.md"))
    for number, record in enumerate(records, 1):
        assert record.name.startswith(f"{number:04}-")
        assert record.read_text().startswith(f"# {number}. ")
        for part in ("Context", "Decision", "Consequence", "Undo"):
            assert f"**{part}.**" in record.read_text()


@pytest.mark.parametrize("file", PAGES, ids=lambda f: f.name)
def test_every_page_is_printable(file):
    assert not set(file.read_text()) & (set(map(chr, range(32))) - set(string.whitespace))
