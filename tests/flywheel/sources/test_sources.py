import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import SourceError
from flywheel.recipe_sources import CodeSource, FilesSource, SklearnSource, Source, SqlSource
from flywheel.record import read_rows
from flywheel.shards import Cache, read_left
from flywheel.sources import base
from tests.mapping import in_process


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text("import os\n")
    (root / "pkg" / "b.py").write_text("import re\n")
    (root / "skipped.py").write_text("import io\n")
    return root


def ingest(sources: list[Source], out: Path) -> dict[str, Any]:
    return base.ingest(base.Ingest(sources, {}, Cache(out / "shards"), in_process), out)


def test_a_query_without_rows_counts_none(tree: Path, tmp_path: Path) -> None:
    query = SqlSource(type="sql", name="none", url="sqlite:///a", query="select 1 where false")
    (tmp_path / "snapshot").mkdir()
    job = base.Ingest([query, source(tree)], {"none": tmp_path / "snapshot"}, Cache(tmp_path / "shards"), in_process)
    found = base.ingest(job, tmp_path)["sources"]
    assert list(found) == ["none", "tree"]
    counts = {"read": 0, "kept": 0, "dropped": {}, "quarantined": {}}
    assert found["none"] == {**counts, "type": "sql", "license": "unknown"}


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
    ingest([source(tree)], tmp_path)
    first = (tmp_path / "rows" / "000000.parquet").read_bytes()
    (tmp_path / "deeper").mkdir()
    moved = tree.rename(tmp_path / "deeper" / "tree")
    assert base.inputs([source(moved)]) == here
    (tmp_path / "rows").rename(tmp_path / "before")
    ingest([source(moved)], tmp_path)
    assert (tmp_path / "rows" / "000000.parquet").read_bytes() == first


def test_ingest_counts_every_row(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text('{"text": "hello"}\nbroken\n')
    notes = FilesSource(type="files", path=str(tmp_path / "notes.jsonl"), license="CC0-1.0")
    summary = ingest([source(tree), notes, notes], tmp_path)
    total = {name: summary[name] for name in ("read", "kept", "dropped", "quarantined", "bytes")}
    assert total == {"read": 7, "kept": 4, "dropped": {"excluded": 1}, "quarantined": {"bad_json": 2}, "bytes": 30}
    notes_count = {"read": 2, "kept": 1, "dropped": {}, "quarantined": {"bad_json": 1}}
    assert summary["sources"] == {
        "tree": {"type": "code", "license": "MIT", "read": 3, "kept": 2, "dropped": {"excluded": 1}, "quarantined": {}},
        "notes.jsonl": {"type": "files", "license": "CC0-1.0", **notes_count},
        "notes.jsonl#2": {"type": "files", "license": "CC0-1.0", **notes_count},
    }
    rows = list(read_rows(tmp_path / "rows"))
    assert [row.text for row in rows] == ["import os\n", "import re\n", "hello", "hello"]
    assert len({row.id for row in rows}) == 4
    assert [(row.path, row.reason) for row in read_left(tmp_path / "left.jsonl")] == [
        ("skipped.py", "excluded"),
        ("notes.jsonl:2", "bad_json"),
        ("notes.jsonl:2", "bad_json"),
    ]
    assert str(tmp_path) not in (tmp_path / "left.jsonl").read_text() + json.dumps([dict(r.origin) for r in rows])


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("remark\nhello\n")
    with pytest.raises(SourceError, match=r"(?s)missing_column.*column"):
        ingest([FilesSource(type="files", path=str(tmp_path / "rows.csv"))], tmp_path)


def test_the_standard_library_without_its_tests_and_tables(tmp_path: Path) -> None:
    stdlib = CodeSource(type="code", path="stdlib", exclude=("**/test/**", "idlelib/**", "lib2to3/**", "distutils/**"))
    summary = ingest([stdlib], tmp_path)
    assert summary["kept"] + sum(summary["dropped"].values()) == summary["read"]
    assert summary["dropped"]["generated_table"] > 40
    kept = {row.origin["path"]: row.origin["group"] for row in read_rows(tmp_path / "rows")}
    assert kept["asyncio/events.py"] == "asyncio"
    assert kept["argparse.py"] == "argparse"
    assert not {"pydoc_data/topics.py", "html/entities.py", "encodings/cp1252.py", "token.py"} & set(kept)
    assert not any("site-packages" in path or "test" in path.split("/") for path in kept)
    assert 300 < len(kept) < 700


def test_inputs_import_nothing_heavy() -> None:
    program = """
import sys
from flywheel.recipe_sources import CodeSource, SklearnSource
from flywheel.shards import Cache, read_left
from flywheel.sources import base
from tests.mapping import in_process
base.inputs([CodeSource(type="code", path="stdlib"), SklearnSource(type="sklearn")])
print([m for m in ("numpy", "pandas", "pyarrow", "sklearn", "torch", "PIL") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_digits_source_is_hashed_by_its_data_file() -> None:
    assert list(base.inputs([SklearnSource(type="sklearn")])) == ["sklearn/digits.csv.gz", "sklearn/ (list of files)"]
