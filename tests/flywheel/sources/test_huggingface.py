from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.errors import SourceError
from flywheel.recipe_sources import HuggingFaceSource
from flywheel.sources import huggingface


@pytest.fixture(scope="session")
def png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    directory = tmp_path / "lines"
    directory.mkdir()
    turns = [{"role": "user", "content": "hi"}]
    rows = [json.dumps({"n": i, "text": f"row {i}", "messages": turns}) for i in range(250)]
    (directory / "train.jsonl").write_text("\n".join(rows))
    (directory / "test.jsonl").write_text(rows[0])
    return directory


def read(path: Path | str, into: Path, **more: Any) -> list[dict[str, Any]]:
    source = HuggingFaceSource(type="huggingface", path=str(path), **more)
    counts = huggingface.acquire(source, into, environment={}, allowed=frozenset())
    found = [row for file in sorted(into.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert counts == {"rows": len(found), "files": len(list(into.iterdir()))}
    return found


def test_a_local_directory_is_read_in_order(lines: Path, tmp_path: Path) -> None:
    found = read(lines, tmp_path / "out")
    assert [row["n"] for row in found] == list(range(250))
    assert found[0]["messages"] == [{"role": "user", "content": "hi"}]
    assert len(read(lines, tmp_path / "test", split="test")) == 1


@pytest.mark.parametrize("most", [1, 100, 130, 1000])
def test_max_rows(lines: Path, tmp_path: Path, most: int) -> None:
    assert len(read(lines, tmp_path / "out", max_rows=most)) == min(most, 250)


def test_pictures_stay_encoded_and_labels_get_their_names(tmp_path: Path, png: bytes) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        (tmp_path / "pets" / label / "a.png").write_bytes(png)
    assert read(tmp_path / "pets", tmp_path / "out") == [
        {"image": png, "label": "cat"},
        {"image": png, "label": "dog"},
    ]


@pytest.mark.parametrize("splits", [False, True])
def test_what_save_to_disk_wrote(tmp_path: Path, png: bytes, splits: bool) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=["x", "y"])})
    cells = {"image": [{"bytes": png, "path": None}, None], "label": [1, None]}
    saved = Dataset.from_dict(cells, features=features)
    (DatasetDict({"train": saved}) if splits else saved).save_to_disk(str(tmp_path / "saved"))
    assert read(tmp_path / "saved", tmp_path / "out") == [{"image": png, "label": "y"}, {"image": None, "label": None}]
    with pytest.raises(SourceError, match="the splits train"):
        read(tmp_path / "saved", tmp_path / "other", split="validation")


def test_pictures_outside_of_the_dataset_are_not_read(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "secret.png").write_bytes(png)
    directory = tmp_path / "set"
    directory.mkdir()
    (directory / "mine.png").write_bytes(png)
    (directory / "link.png").symlink_to(tmp_path / "secret.png")
    inside = [str(directory / name) for name in ("mine.png", "link.png", "../secret.png", "gone.png")]
    paths = [*inside, "../secret.png", str(tmp_path / "secret.png"), "http://127.0.0.1:1/a.png"]
    info = {"info": {"features": {"image": {"_type": "Image"}}}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": None, "path": path} for path in paths], kind)})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), directory / "train.parquet")
    (directory / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n---\n")
    found = read(directory, tmp_path / "out")
    assert [row["image"] for row in found] == [png] + [None] * 6


@pytest.mark.parametrize(
    "pattern", ["/etc/hostname", "../secret.txt", "http://127.0.0.1:1/a.txt", "zip://a.txt::http://127.0.0.1:1/a.zip"]
)
def test_data_files_outside_of_the_dataset_are_refused(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "set").mkdir()
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {json.dumps(pattern)}\n---\n"
    (tmp_path / "set" / "README.md").write_text(card)
    with pytest.raises(SourceError, match="data files inside"):
        read(tmp_path / "set", tmp_path / "out")


def test_loading_scripts_are_refused_and_never_run(lines: Path, tmp_path: Path) -> None:
    script = lines / "lines.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for path in (lines, script):
        with pytest.raises(SourceError, match="loading script"):
            read(path, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "other"}, "Available splits"),
        ({"config": "other"}, "other"),
        ({"path": "nobody/nothing"}, "HF_HUB_OFFLINE"),
        ({"path": "json"}, "a reader of"),
        ({"path": "s3://bucket/data"}, "an address"),
    ],
)
def test_what_cannot_be_read_is_explained(lines: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read(**{"path": lines, "into": tmp_path / "out", **changes})
