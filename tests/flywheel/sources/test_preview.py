import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flywheel.confinement import Answer
from flywheel.errors import RecipeError
from flywheel.sources import preview
from flywheel.sources.base import named_sources
from flywheel.workers import Pool, Request
from tests.e2e.sources.prose import GERMAN, english
from tests.e2e.sources.remote import png
from tests.mapping import in_process


def look(written: str, scratch: Path, mapper: Any = in_process) -> dict[str, Any]:
    (named,) = named_sources([preview.source(written)], {})
    return preview.preview(named, scratch, mapper)


def test_first_rows_their_type_and_what_is_wrong_with_others(tmp_path: Path) -> None:
    said = english("preview", 6)
    rows = [*said, said[0], GERMAN[0], f"{said[1]} Mail ann@example.org."]
    lines = [json.dumps({"prompt": "Go on.", "completion": text, "label": n % 2}) for n, text in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{torn", '{"prompt": "no answer", "completion": null}']))
    found = look(str(tmp_path / "a.jsonl"), tmp_path / "scratch")
    assert (found["read"], found["kept"], found["more"]) == (11, 9, False)
    assert found["row_type"] == {"prompt_completion": 9}
    cut = f"{said[0][:300].rstrip()}... ({len(said[0])} characters)" if len(said[0]) > 300 else said[0]
    assert found["rows"][0] == {"path": "a.jsonl:1", "prompt": "Go on.", "completion": cut, "label": "0"}
    assert len(found["rows"]) == preview.SHOWN
    assert {reason: (left["rows"], left["path"]) for reason, left in found["left_out"].items()} == {
        "bad_json": (1, "a.jsonl:10"),
        "empty": (1, "a.jsonl:11"),
    }
    quality = found["quality"]
    assert (quality["equal_rows"], quality["most_common_labels"]) == (1, {"0": 5, "1": 4})
    assert quality["languages"] == {"en": 8, "de": 1}
    assert quality["personal_identifiers"] == {"email": 1}


def test_it_stops_at_the_first_rows_of_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "large.csv").write_text("text\n" + "a row\n" * 50_000)
    (tmp_path / "other.csv").write_text("text\nnot looked at\n")
    found = look(str(tmp_path), tmp_path / "scratch")
    assert (found["read"], found["more"]) == (preview.LOOKED_AT, True)
    exact = tmp_path / "exact"
    exact.mkdir()
    (exact / "a.csv").write_text("text\n" + "a row\n" * preview.LOOKED_AT)
    assert look(str(exact), tmp_path / "more")["more"] is False


def test_messages_pictures_and_long_cells_are_shown_in_words(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "x" * 1_000}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": messages}))
    (row,) = look(str(tmp_path / "talk.jsonl"), tmp_path / "one")["rows"]
    assert row["messages"] == f"user: Hi.\nassistant: {'x' * 300}... (1000 characters)"
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(9))
    found = look(str(tmp_path / "pictures"), tmp_path / "two")
    assert found["rows"] == [{"path": "a.png", "image": f"32x32 pixels, {len(png(9))} bytes"}]
    assert found["row_type"] == {"image": 1}


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.png", "b.jpg", "labels.txt"], "imagefolder"),
        (["a.wav", "a.txt", "b.flac"], "audiofolder"),
        (["a.py", "b.py", "README.md"], "code"),
        (["a.csv", "b.png"], "files"),
    ],
)
def test_what_a_directory_is_taken_for(tmp_path: Path, names: list[str], kind: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert preview.source(str(tmp_path)).type == kind


def test_a_source_as_a_recipe_writes_it() -> None:
    assert preview.source("s3://bucket/prefix").type == "files"
    assert preview.source("{type: sklearn, dataset: digits}").type == "sklearn"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{type: sql, url: 'sqlite:///a'}", "a value for `query`"),
        ("{type: sq}", "did you mean `sql`?"),
        ("{path: a.csv}", "source.type"),
        ("{type: files, path: a.csv, colums: {}}", "did you mean `columns`?"),
        ("{type: files, path: a.csv, encoding: latin-11}", "such as utf-8 or cp1252"),
        ("{type: [", "while parsing"),
    ],
)
def test_what_is_no_source_is_explained(written: str, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        preview.source(written)
    assert said in str(raised.value)
    assert raised.value.remedy


def test_of_what_is_remote_a_little_is_enough() -> None:
    whole = preview.source("{type: rest, url: 'https://example.org', max_pages: 500}")
    assert preview.a_little(whole) == whole.model_copy(update={"max_pages": 2})
    query = preview.source("{type: sql, url: 'sqlite:///a', query: select 1, max_rows: 3}")
    assert preview.a_little(query) == query
    assert preview.a_little(preview.source("a.csv")) == preview.source("a.csv")


def test_a_file_that_its_parser_does_not_survive_is_left_out_alone(tmp_path: Path) -> None:
    def fragile(requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            evil = any(entry["name"] == "b.txt" for entry in request.argument["entries"])
            yield from [Answer(fault="memory")] if evil else in_process([request])

    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    found = look(str(tmp_path), tmp_path / "scratch", fragile)
    assert [row["path"] for row in found["rows"]] == ["a.txt", "c.txt"]
    assert found["left_out"] == {"parser_memory": {"rows": 1, "path": "b.txt", "detail": ""}}


def test_in_a_confined_child(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhello\n")
    with Pool(1) as pool:
        found = look(str(tmp_path / "a.csv"), tmp_path / "scratch", pool)
    assert found["rows"] == [{"path": "a.csv:2", "text": "hello"}]
