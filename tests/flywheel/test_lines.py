from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flywheel import lines


def test_entries_of_many_writers_come_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: lines.append(file, {"n": n, "text": "é\n\ud800" * n}), range(40)))
    assert sorted(entry["n"] for entry in lines.read(file)) == list(range(40))


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    lines.append(file, 1)
    file.write_bytes(file.read_bytes() + b'{"half": ')
    lines.append(file, 2)
    assert list(lines.read(file)) == [1, 2]
    assert list(lines.read(tmp_path / "none")) == []


def test_entries_of_another_shape_are_no_pairs(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    lines.append(file, 12, "ab", [1, 2], ["a"], {"a": 1}, None, ["b", 3])
    assert list(lines.pairs(file)) == [("b", 3)]
