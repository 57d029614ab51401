"""pyproject.toml, constraints.txt and docs/dependencies.md tell the same story."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
DIRECT = [r for r in map(Requirement, (*PROJECT["dependencies"], *EXTRAS)) if r.name != PROJECT["name"]]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}
PAGE = (ROOT / "docs" / "dependencies.md").read_text()


def test_every_constraint_is_one_exact_version():
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    assert len(PINS) == len(LINES)


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda r: r.name)
def test_each_dependency_is_pinned_within_its_range_and_explained(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])
    assert f"`{requirement.name}`" in PAGE


def test_every_upper_bound_has_its_reason():
    held = {r.name: str(s) for r in DIRECT for s in r.specifier if s.operator in ("<", "<=", "==")}
    _, _, table = PAGE.partition("## Held back")
    assert held
    for name, bound in held.items():
        assert f"`{name}{bound}`" in table


def test_what_is_explained_is_a_dependency():
    named = re.findall(r"^\| (`.*?) \|", PAGE.partition("## What each is for")[2], re.MULTILINE)
    explained = {name for cell in named for name in re.findall(r"`([^`]+)`", cell)}
    assert explained <= {r.name for r in DIRECT}


def test_everything_that_the_project_needs_is_pinned():
    """Also what dependencies depend on, as installed here."""
    waiting, seen = [r.name for r in DIRECT], set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        requirements = map(Requirement, metadata.requires(name) or ())
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert seen - PINS.keys() == set()


def test_the_two_runtimes_that_clash_are_not_pinned():
    assert not {"onnxruntime", "onnxruntime-genai"} & PINS.keys()
