import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.errors import SourceError
from flywheel.recipe import CodeSource, SklearnSource, TextSource
from flywheel.record import read_rows
from flywheel.sources import base


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text("import os\n")
    (root / "pkg" / "b.py").write_text("import re\n")
    (root / "skipped.py").write_text("import io\n")
    return root


def source(root: Path) -> CodeSource:
    return CodeSource(type="code", path=str(root), exclude=("skipped.py",), license="MIT")


def test_inputs_see_every_byte_and_every_name_but_no_time(tree: Path) -> None:
    before = base.inputs([source(tree)])
    assert set(before) == {"tree/pkg/a.py", "tree/pkg/b.py", "tree/ (list of files)"}
    os.utime(tree / "pkg" / "a.py", (1, 1))
    assert base.inputs([source(tree)]) == before

    (tree / "pkg" / "a.py").write_text("import or\n")
    changed = base.inputs([source(tree)])
    assert {name for name in before if changed[name] != before[name]} == {"tree/pkg/a.py"}

    (tree / "pkg" / "a.py").write_text("import os\n")
    (tree / "pkg" / "b.py").rename(tree / "pkg" / "c.py")
    assert base.inputs([source(tree)]) != before
    (tree / "pkg" / "c.py").rename(tree / "pkg" / "b.py")
    (tree / "pkg" / "new.py").touch()
    assert base.inputs([source(tree)]) != before
    (tree / "pkg" / "new.py").unlink()
    assert base.inputs([source(tree)]) == before


def test_inputs_and_rows_do_not_depend_on_where_the_files_stand(tree: Path, tmp_path: Path) -> None:
    here = base.inputs([source(tree)])
    base.ingest([source(tree)], tmp_path)
    first = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "deeper").mkdir()
    moved = tree.rename(tmp_path / "deeper" / "tree")
    assert base.inputs([source(moved)]) == here
    base.ingest([source(moved)], tmp_path)
    assert (tmp_path / "rows.parquet").read_bytes() == first


def test_ingest_counts_every_row(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text('{"text": "hello"}\nbroken\n')
    notes = TextSource(type="text", path=str(tmp_path / "notes.jsonl"), license="CC0-1.0")
    summary = base.ingest([source(tree), notes, notes], tmp_path)
    assert summary == {
        "read": 7,
        "kept": 4,
        "dropped": {"bad_json": 2, "excluded": 1},
        "bytes": 30,
        "sources": [
            {"type": "code", "path": "tree", "license": "MIT", "kept": 2},
            {"type": "text", "path": "notes.jsonl", "license": "CC0-1.0", "kept": 1},
            {"type": "text", "path": "notes.jsonl#2", "license": "CC0-1.0", "kept": 1},
        ],
    }
    rows = list(read_rows(tmp_path / "rows.parquet"))
    assert [row.text for row in rows] == ["import os\n", "import re\n", "hello", "hello"]
    assert len({row.id for row in rows}) == 4
    dropped = json.loads((tmp_path / "dropped.json").read_text())
    assert [(row["path"], row["reason"]) for row in dropped] == [
        ("skipped.py", "excluded"),
        ("notes.jsonl", "bad_json"),
        ("notes.jsonl", "bad_json"),
    ]
    assert str(tmp_path) not in (tmp_path / "dropped.json").read_text() + json.dumps([dict(r.origin) for r in rows])


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("body\nhello\n")
    with pytest.raises(SourceError, match=r"(?s)missing_column.*column"):
        base.ingest([TextSource(type="text", path=str(tmp_path / "rows.csv"))], tmp_path)


def test_the_standard_library_without_its_tests_and_tables(tmp_path: Path) -> None:
    stdlib = CodeSource(type="code", path="stdlib", exclude=("**/test/**", "idlelib/**", "lib2to3/**", "distutils/**"))
    summary = base.ingest([stdlib], tmp_path)
    assert summary["kept"] + sum(summary["dropped"].values()) == summary["read"]
    assert summary["dropped"]["generated_table"] > 40
    kept = {row.origin["path"]: row.origin["group"] for row in read_rows(tmp_path / "rows.parquet")}
    assert kept["asyncio/events.py"] == "asyncio"
    assert kept["argparse.py"] == "argparse"
    assert not {"pydoc_data/topics.py", "html/entities.py", "encodings/cp1252.py", "token.py"} & set(kept)
    assert not any("site-packages" in path or "test" in path.split("/") for path in kept)
    assert 300 < len(kept) < 700


def test_inputs_import_nothing_heavy() -> None:
    program = """
import sys
from flywheel.recipe import CodeSource, SklearnSource
from flywheel.sources import base
base.inputs([CodeSource(type="code", path="stdlib"), SklearnSource(type="sklearn")])
print([m for m in ("numpy", "pandas", "pyarrow", "sklearn", "torch", "PIL") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_digits_source_is_hashed_by_its_data_file() -> None:
    assert list(base.inputs([SklearnSource(type="sklearn")])) == ["sklearn/digits.csv.gz"]
