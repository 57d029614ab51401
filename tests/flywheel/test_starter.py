from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel import recipe_file, starter
from flywheel.errors import SourceError
from tests.recipes import code_files


def test_a_code_tree_gets_a_recipe_that_loads(tmp_path: Path) -> None:
    starter.write(code_files(tmp_path / "my project", 1), tmp_path / "r.yaml")
    recipe = recipe_file.load(tmp_path / "r.yaml")
    assert (recipe.name, recipe.model.modality) == ("my-project", "code")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_longest_text_column_is_found(tmp_path: Path, suffix: str) -> None:
    data = tmp_path / f"d{suffix}"
    rows = [{"id": "a", "body": "a long text " * 5}]
    data.write_text(json.dumps(rows[0]) if suffix == ".jsonl" else f"id,body\na,{rows[0]['body']}\n")
    starter.write(data, tmp_path / "r.yaml")
    source = recipe_file.load(tmp_path / "r.yaml").data.sources[0]
    assert source.type == "text"
    assert source.column == "body"


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0")
    with pytest.raises(SourceError, match=r"\.bin"):
        starter.look(tmp_path)
    with pytest.raises(SourceError, match="nothing there"):
        starter.look(tmp_path / "absent")


def test_an_existing_recipe_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("mine")
    with pytest.raises(SourceError, match="exists"):
        starter.write(code_files(tmp_path / "src", 1), tmp_path / "r.yaml")
    assert (tmp_path / "r.yaml").read_text() == "mine"
