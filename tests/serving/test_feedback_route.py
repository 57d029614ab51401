"""POST /v1/feedback: what is collected, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from flywheel import feedback
from serving.guard import MAX_BODY, Rate
from serving.refusals import Refusal
from tests.serving.support import Pixel, Words, running

LIKED = {"model": "words", "prompt": "Größe?", "completion": "word0-0", "rating": "up"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collected") / "feedback"


@pytest.fixture(scope="module")
def client(directory: Path) -> Iterator[httpx.Client]:
    with (
        running({"words": Words(), "pixel": Pixel()}, feedback=directory) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
    ):
        yield client


def test_an_entry_is_on_the_disk_when_the_answer_comes(client: httpx.Client, directory: Path) -> None:
    entry = {**LIKED, "rating": "down", "id": "cmpl-1", "correction": "big", "comment": "wrong", "user": "ignored"}
    answer = client.post("/v1/feedback", json=entry)
    assert answer.status_code == 201
    assert answer.json()["object"] == "feedback"
    last = json.loads((directory / "words.jsonl").read_text().splitlines()[-1])
    assert last == {k: v for k, v in entry.items() if k != "user"} | {"received": answer.json()["received"]}


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"model": "other"}, 404, "served are: words, pixel"),
        ({"model": "../words"}, 404, "served are"),
        ({"model": "pixel"}, 400, "makes image"),
        ({"rating": "great"}, 400, "rating"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "\ud800"}, 400, "unicode"),
        ({"correction": ""}, 400, "correction"),
        ({"stars": 5}, 400, "stars is not known"),
        ({"completion": "x" * MAX_BODY}, 413, "larger than"),
    ],
)
def test_what_is_refused(
    client: httpx.Client, directory: Path, changes: dict[str, object], status: int, said: str
) -> None:
    answer = client.post("/v1/feedback", content=json.dumps({**LIKED, **changes}), headers=JSON)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert [p.name for p in directory.parent.rglob("*.jsonl")] in ([], ["words.jsonl"])


def test_without_a_directory_nothing_is_collected(http: httpx.Client) -> None:
    answer = http.post("/v1/feedback", json=LIKED)
    assert answer.status_code == 404
    assert "--feedback DIR" in answer.json()["error"]["message"]


def test_a_full_file_is_said(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "MAX_BYTES", 10)
    answer = client.post("/v1/feedback", json=LIKED)
    assert answer.status_code == 507
    assert answer.json()["error"]["code"] == "feedback_full"


def test_too_many_are_refused_and_told_when_to_come_back(directory: Path) -> None:
    with (
        running({"words": Words()}, feedback=directory.parent / "many") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
    ):
        answers = [client.post("/v1/feedback", json=LIKED) for _ in range(1000)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[0].headers["Retry-After"] == "1"
    kept = (directory.parent / "many" / "words.jsonl").read_text().splitlines()
    assert len(kept) == sum(answer.status_code == 201 for answer in answers) == 1000 - len(refused)


def test_a_rate_allows_a_burst_and_then_its_pace() -> None:
    rate = Rate(per_second=1e-3, burst=3)
    for _ in range(3):
        rate.take()
    with pytest.raises(Refusal) as refusal:
        rate.take()
    assert refusal.value.headers == {"Retry-After": "1000"}


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.none(), max_size=1)


@seed(3)
@settings(max_examples=100, deadline=None, database=None)
@given(
    body=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("model", "prompt", "completion", "rating", "id", "correction", "comment"), VALUES)
    )
)
def test_any_body_is_answered(http: httpx.Client, client: httpx.Client, body: dict[str, object]) -> None:
    answer = client.post("/v1/feedback", content=json.dumps({"model": "words", **body}), headers=JSON)
    assert answer.status_code in (201, 400, 404, 429)
