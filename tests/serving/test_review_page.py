"""The page of a review, behind a real server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from flywheel import lines, review, review_rows
from flywheel.errors import SourceError
from serving.__main__ import bind
from serving.review import PAGE, create_app, policy

HOSTILE = '</script><img src=x onerror="alert(1)"><b>\u202e'


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("review") / "batch.json"
    asked = [review_rows.Question(str(n), f"question {n} {HOSTILE}") for n in range(3)]
    sides = [(side, {q.id: f"{side} {HOSTILE}" for q in asked}) for side in ("one", "other")]
    review_rows.make(path, asked, sides, [], 0)
    return path


@pytest.fixture(scope="module")
def client(batch: Path) -> Iterator[httpx.Client]:
    listener = bind("127.0.0.1", 0)
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(create_app(batch), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False) as client:
        yield client
    server.should_exit = True
    thread.join()


def verdict(client: httpx.Client, **said: Any) -> dict[str, Any]:
    found = client.get("/api/batch").json()
    return {"batch": found["batch"], "item": found["items"][0]["id"], "rater": "anna", **said}


def test_the_page_runs_its_own_script_alone(client: httpx.Client) -> None:
    page = client.get("/")
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert re.fullmatch(r"'sha256-\S{44}'", rules["script-src"])
    assert re.fullmatch(r"'sha256-\S{44}'", rules["style-src"])
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.text == PAGE.read_text()
    assert policy(page.text.replace('"use strict"', '"use"')) != page.headers["content-security-policy"]


def test_the_page_has_no_markup_from_text_and_no_foreign_part() -> None:
    page = PAGE.read_text()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://|//[a-z]+\.", page)
    assert not re.findall(r"<[^>]+\s(?:on\w+|style|src|href)=", page)


def test_a_batch_is_shown_without_its_key(client: httpx.Client) -> None:
    found = client.get("/api/batch").json()
    assert (found["mode"], len(found["items"]), found["name"]) == ("compare", 3, "batch.json")
    assert set(found["items"][0]) == {"id", "prompt", "answers"}
    assert found["items"][0]["prompt"].endswith(HOSTILE)
    assert client.get("/batch.key.json").status_code == 404


def test_verdicts_are_saved_at_once_and_only_their_rater_sees_them(client: httpx.Client, batch: Path) -> None:
    file = batch.with_name("batch.verdicts.jsonl")
    assert client.post("/api/verdicts", json=verdict(client, choice="A")).status_code == 201
    assert client.post("/api/verdicts", json=verdict(client, choice="B", comment="né")).status_code == 201
    assert client.post("/api/verdicts", json=verdict(client, choice="tie", rater=" ben ")).status_code == 201
    assert [(e["rater"], e["choice"]) for e in lines.read(file)] == [("anna", "A"), ("anna", "B"), ("ben", "tie")]
    (mine,) = client.get("/api/verdicts", params={"rater": "anna"}).json()
    assert (mine["choice"], mine["comment"]) == ("B", "né")
    assert client.get("/api/verdicts", params={"rater": "cleo"}).json() == []
    assert {v.rater for v in review.verdicts(review.open_batch(batch))} == {
        "anna",
        "ben",
    }  # as a server that starts anew


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"item": "none"}, 422),
        ({"batch": "another"}, 422),
        ({"ratings": {"kind": 3}}, 422),
        ({"choice": "C"}, 400),
        ({"rater": "  "}, 400),
        ({"rater": "x" * 81}, 400),
        ({"ratings": {"kind": 6}}, 400),
        ({"comment": "x" * 10_001}, 400),
        ({"more": 1}, 400),
    ],
)
def test_what_is_no_verdict_is_refused(client: httpx.Client, said: dict[str, Any], status: int) -> None:
    answer = client.post("/api/verdicts", json=verdict(client, **said))
    assert (answer.status_code, "message" in answer.json()["error"]) == (status, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 400),
        ({"Content-Type": ""}, 400),
        ({"Host": "example.com"}, 400),
    ],
)
def test_pages_of_others_cannot_send_verdicts(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    body = json.dumps(verdict(client, choice="A", rater="mallory"))
    sent = client.post("/api/verdicts", content=body, headers={"Content-Type": "application/json", **headers})
    assert sent.status_code == status
    assert client.get("/api/verdicts", params={"rater": "mallory"}).json() == []


def test_the_own_page_is_admitted(client: httpx.Client) -> None:
    headers = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/verdicts", json=verdict(client, rater="dora"), headers=headers).status_code == 201


def test_what_is_no_batch_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "batch.json").write_text("{}")
    with pytest.raises(SourceError, match="flywheel review make"):
        create_app(tmp_path / "batch.json")
