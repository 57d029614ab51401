"""What README.md shows is run, or compared with what it shows."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel import recipe_file
from tests.serving.support import Pixel, Words, running

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8080"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
OURS = [words[1:] for words in map(shlex.split, COMMANDS) if words[0] == "flywheel"]


def flywheel(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_it_opens_with_one_sentence_one_figure_and_one_command():
    title, sentence, figure, command = README.split("\n\n")[:4]
    assert title == "# Flywheel"
    assert sentence.count(". ") == 0
    assert figure
    assert command.startswith("```console\n$ make run\n")


@pytest.mark.parametrize("target", [c.split()[1] for c in COMMANDS if c.startswith("make ")])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("arguments", [a for a in OURS if a[0] in ("--help", "plan", "schema", "doctor")], ids=str)
def test_quick_commands_run(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    done = flywheel(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_init_runs_on_a_directory_of_files(tmp_path):
    arguments = next(a for a in OURS if a[0] == "init")
    (tmp_path / arguments[1]).mkdir()
    (tmp_path / arguments[1] / "one.txt").write_text("Once upon a time.\n")
    assert flywheel(*arguments, cwd=tmp_path).returncode == 0
    recipe_file.load(tmp_path / arguments[3])


@pytest.mark.parametrize("arguments", [a for a in OURS if a[0] == "run"], ids=str)
def test_recipes_and_overrides_of_longer_commands_hold(arguments):
    words = [word for word in arguments[1:] if word != "--json"]
    recipe_file.load(ROOT / words[0], words[1:])


def name_of(arguments):
    """A command is a word, or two in the groups `data` and `review`."""
    return tuple(arguments[: 1 + (arguments[0] in ("data", "review"))])


@pytest.mark.parametrize("name", sorted({name_of(a) for a in OURS if not a[0].startswith("-")}), ids=str)
def test_commands_and_their_options_exist(name):
    shown = flywheel(*name, "--help").stdout
    assert all(w in shown for a in OURS if name_of(a) == name for w in a if w.startswith("--"))


def test_shell_lines_are_sound_and_their_bodies_are_json():
    others = [c for c in COMMANDS if not c.startswith(("make ", "flywheel "))]
    subprocess.run(["sh", "-n"], input="\n".join(others), text=True, check=True)
    for line in others:
        words = shlex.split(line)
        if "-d" in words:
            assert set(json.loads(words[words.index("-d") + 1])["parameters"]) <= {"recipe", "overrides"}


def test_the_recipe_is_the_file():
    (shown,) = blocks("yaml")
    path = ROOT / "recipes" / "stdlib-coder.yaml"
    assert shown == path.read_text()
    recipe_file.load(path)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs_against_a_server(code, tmp_path, capsys):
    assert ADDRESS in code
    with running({"stdlib-coder": Words(), "digits-diffusion": Pixel()}) as url:
        command = [sys.executable, "-c", code.replace(ADDRESS, url)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    picture = tmp_path / "seven.png"
    assert picture.read_bytes().startswith(b"\x89PNG") if picture.exists() else "word1-0" in done.stdout


def test_the_tree_is_there():
    (tree,) = blocks("text")
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name
            assert (ROOT / name).is_dir(), name
        else:
            assert (ROOT / folder / name).exists(), line


def test_exit_codes_are_those_of_the_command():
    told = flywheel("--help").stdout
    for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE):
        assert re.search(rf"\b{code} ", told)
