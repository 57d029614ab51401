from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from flywheel import feedback
from flywheel.errors import ServingError, SourceError
from flywheel.recipe_sources import FeedbackSource
from flywheel.sources import rolling

ENTRY = {"model": "m", "prompt": "Größe?", "completion": "a", "rating": "up", "received": 1}


def acquired(directory: Path, into: Path, **more: Any) -> tuple[list[str], dict[str, Any]]:
    source = FeedbackSource.model_validate({"type": "feedback", "model": "m", **more})
    counts = feedback.acquire(source, into, directory=directory)
    lines = [line for file in sorted(into.iterdir()) for line in file.read_text().splitlines()]
    assert (counts["rows"], counts["files"]) == (len(lines), len(list(into.iterdir())))
    return lines, counts


def test_corrections_win_and_ratings_become_labels(tmp_path: Path) -> None:
    for changes in ({}, {"rating": "down"}, {"rating": "down", "correction": "b"}):
        feedback.append(tmp_path / "f", {**ENTRY, **changes})
    up = {"prompt": "Größe?", "completion": "a", "label": "up"}
    down = {"prompt": "Größe?", "completion": "a", "label": "down"}
    corrected = {"prompt": "Größe?", "completion": "b", "label": "down"}
    lines, counts = acquired(tmp_path / "f", tmp_path / "up")
    assert [json.loads(line) for line in lines] == [up, corrected]
    assert counts["left_out"] == 1
    lines, counts = acquired(tmp_path / "f", tmp_path / "any", rating="any")
    assert [json.loads(line) for line in lines] == [up, down, corrected]
    assert counts["left_out"] == 0


def test_a_torn_line_is_handed_on_and_harms_no_other(tmp_path: Path) -> None:
    feedback.append(tmp_path, ENTRY)
    with feedback.path(tmp_path, "m").open("a") as file:
        file.write('{"model": "m", "prom')
    feedback.append(tmp_path, ENTRY)
    lines, _ = acquired(tmp_path, tmp_path / "out")
    assert len(lines) == 3
    assert lines[1] == '{"model": "m", "prom'
    assert lines[0] == lines[2]


def test_files_but_the_last_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "LINES", 2)
    for number in range(3):
        feedback.append(tmp_path, {**ENTRY, "prompt": str(number)})
    acquired(tmp_path, tmp_path / "a")
    feedback.append(tmp_path, ENTRY)
    feedback.append(tmp_path, ENTRY)
    acquired(tmp_path, tmp_path / "b")
    assert [p.name for p in sorted((tmp_path / "b").iterdir())] == [f"rows-0000{n}.jsonl" for n in range(3)]
    assert (tmp_path / "a/rows-00000.jsonl").read_bytes() == (tmp_path / "b/rows-00000.jsonl").read_bytes()


def test_several_processes_append_whole_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = feedback.path(tmp_path, "m").read_text().splitlines()
    assert len(lines) == 100
    assert {json.loads(line)["prompt"][0] for line in lines} == set("0123")


def _append_many(directory: Path, number: int) -> None:
    for _ in range(25):
        feedback.append(directory, {**ENTRY, "prompt": str(number) * 20_000})


@pytest.mark.parametrize("model", ["../../m", "/etc/m", "a/b", "..", "", "x\n"])
def test_a_model_of_any_name_has_a_file_inside(tmp_path: Path, model: str) -> None:
    directory = tmp_path / "deep" / "f"
    feedback.append(directory, {**ENTRY, "model": model})
    assert [p.parent for p in tmp_path.rglob("*") if p.is_file()] == [directory]


def test_a_full_file_and_a_missing_one_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="POST /v1/feedback"):
        acquired(tmp_path, tmp_path / "out")
    monkeypatch.setattr(feedback, "MAX_BYTES", 150)
    feedback.append(tmp_path, ENTRY)
    with pytest.raises(ServingError, match="at most 150 bytes"):
        feedback.append(tmp_path, ENTRY)
    assert len(feedback.path(tmp_path, "m").read_text().splitlines()) == 1
