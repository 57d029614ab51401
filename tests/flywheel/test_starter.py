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
    rows = [{"id": "a", "note": "a long text " * 5}]
    data.write_text(json.dumps(rows[0]) if suffix == ".jsonl" else f"id,note\na,{rows[0]['note']}\n")
    starter.write(data, tmp_path / "r.yaml")
    source = recipe_file.load(tmp_path / "r.yaml").data.sources[0]
    assert source.type == "files"
    assert source.columns == {"text": "note"}


def test_a_known_layout_needs_no_columns(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps([{"instruction": "say a", "input": "", "output": "a"}]))
    assert starter.look(tmp_path).source == {"type": "files", "path": str(tmp_path)}


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


def test_text_that_is_not_utf8_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("id;Größe\na;" + "schön und groß " * 5 + "\n", encoding="latin-1")
    starter.write(tmp_path / "d.csv", tmp_path / "r.yaml")
    source = recipe_file.load(tmp_path / "r.yaml").data.sources[0]
    assert source.type == "files"
    assert (source.encoding, source.columns) == ("auto", {"text": "Größe"})


def test_what_a_recipe_by_hand_can_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match="flywheel data preview"):
        starter.look(tmp_path)
