"""`flywheel review`: a registered model's answers beside references, on their way to preference rows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.review import answer
from flywheel import review
from flywheel.errors import ServingError, SourceError
from flywheel.review import Verdict, open_batch
from flywheel.review_rows import Question
from tests import tiny_decoder
from tests.serving.support import Words


def flywheel(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["review", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    rows = [{"prompt": word, "completion": "a reference"} for word in ("def", "return", "class")]
    (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path / "q.jsonl"


def decide(path: Path, choice: str, rater: str = "anna") -> None:
    opened = open_batch(path)
    for item in opened.batch.items:
        said: dict[str, Any] = {"batch": opened.digest, "item": item.id, "rater": rater, "choice": choice}
        review.save(opened, Verdict(**said), 0.0)


@patch.dict(os.environ)  # the command sets variables for its process
def test_a_registered_model_is_compared_with_references(tmp_path: Path, asked: Path) -> None:
    from infra import registry, tracking
    from infra.settings import Settings

    os.environ["FLYWHEEL_HOME"] = str(tmp_path / "home")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    tiny_decoder.build(bundle)
    settings = Settings.load()
    with tracking.lifecycle_run(settings, "tiny", "0123", tags={}, params={}) as run:
        registry.register(settings, registry.Candidate("tiny", bundle, run.id, "f1", "text", "card"))
    batch = tmp_path / "batch.json"
    made = flywheel("make", "--prompts", asked, "--a", "tiny/1", "--b", asked, "-o", batch, "--max-tokens", 4, "--json")
    assert json.loads(made.stdout) == {"batch": str(batch), "items": 3, "identical": 0, "missing": 0}
    decide(batch, "A")
    told = flywheel("report", batch, "--preferences", tmp_path / "out.jsonl", "--json")
    assert json.loads(told.stdout)["sides"] == {"a": "tiny/1", "b": str(asked)}
    rows = list(map(json.loads, (tmp_path / "out.jsonl").open()))
    assert {row["prompt"] for row in rows} <= {"def", "return", "class"}
    assert all("a reference" in (row["chosen"], row["rejected"]) for row in rows)
    assert "win rate" in flywheel("report", batch).stdout


def test_answers_of_a_file_are_rated(tmp_path: Path, asked: Path) -> None:
    batch = tmp_path / "batch.json"
    made = flywheel("make", "--prompts", asked, "--a", asked, "-o", batch, "--count", 2, "--scale", "kind")
    assert f"flywheel review serve {batch}" in made.stderr
    found = open_batch(batch).batch
    assert (found.mode, found.scales, len(found.items)) == ("rate", ("kind",), 2)
    assert {item.answers for item in found.items} == {("a reference",)}


def test_how_a_model_is_asked() -> None:
    talk = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
    assert answer(Words(), Question("", "one"), " <answer>", 2) == "word0-0 word0-1 "
    assert answer(Words(), Question("", talk), "", 100).count("word0") == Words.context - 3
    with pytest.raises(ServingError, match=r"question 'fail'(.|\n)*leave it out"):
        answer(Words(), Question("", "fail"), "", 2)


def test_an_output_that_is_an_input_is_refused(tmp_path: Path, asked: Path) -> None:
    before, batch, key = asked.read_bytes(), tmp_path / "batch.json", tmp_path / "batch.key.json"
    link = tmp_path / "link.jsonl"
    link.symlink_to(asked)
    for out in (asked, link):
        with pytest.raises(SourceError, match="--output"):
            flywheel("make", "--prompts", asked, "--a", asked, "-o", out)
    (tmp_path / "b.key.json").hardlink_to(asked)
    with pytest.raises(SourceError, match=r"b\.key\.json"):
        flywheel("make", "--prompts", asked, "--a", asked, "-o", tmp_path / "b.json")
    flywheel("make", "--prompts", asked, "--a", asked, "-o", batch)
    for item in open_batch(batch).batch.items:
        review.save(open_batch(batch), Verdict(batch=open_batch(batch).digest, item=item.id, rater="a", comment="x"), 0)
    files = (asked, batch, key, tmp_path / "batch.verdicts.jsonl")
    contents = [file.read_bytes() for file in files]
    for file in files[1:]:
        with pytest.raises(SourceError, match="--preferences"):
            flywheel("report", batch, "--preferences", file)
    assert [file.read_bytes() for file in files] == contents == [before, *contents[1:]]


def test_what_the_screen_says_of_a_review(tmp_path: Path, asked: Path) -> None:
    rows = [{"prompt": word, "completion": said} for word, said in (("def", "x"), ("return", "a reference"))]
    (tmp_path / "other.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    batch = tmp_path / "batch.json"
    made = flywheel("make", "--prompts", asked, "--a", asked, "--b", tmp_path / "other.jsonl", "-o", batch)
    assert "left out 1 that both sides answer alike, 1 without an answer" in made.stderr
    decide(batch, "A", "bob [/bold]\x1b :x:")
    told = flywheel("report", batch).stdout
    assert "judged by bob [/bold]\\x1b :x:" in told
    assert "\x1b" not in told
    assert ["prefers first", "1.000"] in [line.strip().rsplit(maxsplit=1) for line in told.splitlines()]
    assert told.count("undefined: one rater") == 2
    decide(batch, "A", "eve")
    assert flywheel("report", batch).stdout.count("undefined: fewer than two values") == 3
