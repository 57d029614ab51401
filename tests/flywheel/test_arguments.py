from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from flywheel import arguments
from flywheel.errors import RecipeError


def measure(exam: object, *, path: str, k: Annotated[int, Field(ge=1)] = 1) -> None:
    """A function as recipes name them."""


def test_arguments_that_fit_pass() -> None:
    arguments.check("place", "measure", measure, {"path": "x", "k": 2})


@pytest.mark.parametrize(
    ("given", "told"),
    [({"path": "x", "pat": 2}, "did you mean path"), ({"path": "x", "k": 0}, "greater than"), ({}, "no path")],
)
def test_others_are_told(given: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        arguments.check("place", "measure", measure, given)


def test_files_that_arguments_name_are_found(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("a.json", "d/b.json"):
        (tmp_path / name).write_text("{}")
    one, other = {"path": str(tmp_path / "a.json"), "n": 3}, {"paths": [str(tmp_path / "d"), "no"]}
    named = ["bare", {"one": one}, {"two": other}]
    assert [p.name for p in arguments.files(named)] == ["a.json", "b.json"]
