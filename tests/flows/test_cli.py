"""The command as a user meets it: real processes, their output and their exit codes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.recipes import code_files, code_recipe, write

ROOT = Path(__file__).parent.parent.parent
FLYWHEEL = [sys.executable, "-m", "flows.cli"]
HEAVY = {
    *("torch", "transformers", "diffusers", "mlflow", "prefect", "great_expectations", "pandas", "numpy", "fastapi"),
    *("pydantic", "httpx", "yaml", "rich.console"),
}
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|9[0-7])m")


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write(tmp_path / "tiny.yaml", code_recipe(code_files(tmp_path / "src", 4)))


@pytest.fixture
def flywheel(tmp_path):
    """Run the command in an empty directory with a home of its own."""
    environment = {**os.environ, "FLYWHEEL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*FLYWHEEL, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_help_imports_nothing_heavy():
    code = "import sys, flows.cli as c\ntry: c.main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "Exit codes" in done.stdout
    assert HEAVY & set(done.stderr.split()) == set()


def test_plan_as_json_is_one_object_and_nothing_else(flywheel, recipe):
    done = flywheel("plan", recipe, "train.max_steps=7", "--json")
    steps = json.loads(done.stdout)["steps"]
    assert [s["name"] for s in steps][:2] == ["ingest", "prepare"]
    assert all(set(s) == {"name", "fingerprint", "cached", "reason"} for s in steps)
    assert {(s["cached"], s["reason"]) for s in steps} == {(False, "never built")}
    assert (done.returncode, done.stderr) == (0, "")


def test_plan_for_people(flywheel, recipe):
    done = flywheel("plan", recipe)
    assert re.search(r"^train +miss +never built", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


def test_a_bad_recipe_is_explained_and_exits_with_2(flywheel, recipe):
    recipe.write_text(recipe.read_text().replace("max_steps: 30", "max_step: 30"))
    done = flywheel("plan", recipe)
    line = recipe.read_text().splitlines().index("  max_step: 30") + 1
    assert done.returncode == 2
    assert f"{recipe}:{line}: train.max_step" in done.stderr
    assert "did you mean `max_steps`?" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback(flywheel, recipe):
    done = flywheel("--debug", "plan", recipe, "train.max_steps=none")
    assert "Traceback" in done.stderr
    assert done.returncode == 2


def test_a_setting_that_is_wrong_exits_with_2(flywheel, recipe, monkeypatch):
    command = [*FLYWHEEL, "plan", str(recipe)]
    environment = {**os.environ, "FLYWHEEL_SERVE_PORT": "http"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "FLYWHEEL_SERVE_PORT" in done.stderr) == (2, True)


def test_an_expectation_that_does_not_exist_exits_with_2(flywheel, recipe):
    recipe.write_text(recipe.read_text().replace("expect_column_values_to_be_unique", "expect_column_values_unique"))
    done = flywheel("plan", recipe)
    assert (done.returncode, "expect_column_values_to_be_unique" in done.stderr) == (2, True)


def test_a_source_that_is_not_there_exits_with_2(flywheel, recipe):
    done = flywheel("plan", recipe, "data.sources.0.path=absent")
    assert (done.returncode, "absent" in done.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["turn"], ["plan"], ["plan", "--jsn", "x.yaml"], ["serve"]])
def test_wrong_arguments_exit_with_2(flywheel, arguments):
    done = flywheel(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "flywheel" in done.stderr or "Usage" in done.stderr


def test_interrupted_exits_with_130(tmp_path):
    """The recipe is a pipe, so that the command waits in the middle of its work."""
    os.mkfifo(tmp_path / "recipe.yaml")
    process = subprocess.Popen([*FLYWHEEL, "plan", str(tmp_path / "recipe.yaml")], stderr=subprocess.PIPE, text=True)
    with (tmp_path / "recipe.yaml").open("w"):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip() == "interrupted; the same command continues"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_on_a_terminal_unless_no_color(recipe, no_color):
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color, "COLUMNS": "100"}
    subprocess.run([*FLYWHEEL, "plan", str(recipe)], cwd=ROOT, env=environment, stdout=side, check=True)
    os.close(side)
    shown = os.read(main, 65_536).decode()
    os.close(main)
    assert "never built" in shown
    assert bool(COLOUR.search(shown)) == (not no_color)


def test_the_schema_is_valid_and_fits_the_recipes(flywheel):
    schema = json.loads(flywheel("schema").stdout)
    Draft202012Validator.check_schema(schema)
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        Draft202012Validator(schema).validate(yaml.safe_load(recipe.read_text()))


def test_every_key_of_the_schema_is_explained(flywheel):
    schema = json.loads(flywheel("schema").stdout)
    parts = schema["$defs"]
    keys = [item for part in (schema, *parts.values()) for item in part.get("properties", {}).items()]
    said = [(name, key, parts.get(key.get("$ref", "").rpartition("/")[2], {})) for name, key in keys]
    silent = {name for name, key, section in said if not (key.get("description") or section.get("description"))}
    assert silent <= {"type", "modality"}  # the tags of unions, explained by their sections


def test_init_writes_a_recipe_that_plans(flywheel, tmp_path):
    code_files(tmp_path / "mine", 2)
    done = flywheel("init", "mine")
    assert (done.returncode, done.stdout) == (0, "")
    assert "flywheel plan recipe.yaml" in done.stderr
    assert flywheel("plan", "recipe.yaml").returncode == 0
    assert flywheel("init", "mine").returncode == 2  # never over an existing file
