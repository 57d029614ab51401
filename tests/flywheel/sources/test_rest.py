import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import FetchError, SourceError
from flywheel.recipe_sources import Pagination, RestSource
from flywheel.sources import rest
from tests.flywheel.sources.web_server import Answer, Asked, Server, serve


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def fetch(server: Server, into: Path, environment: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    source = RestSource(type="rest", **{"url": f"{server.url}/rows", **changes})
    return rest.acquire(source, into, environment=environment or {}, allowed=server.allowed)


def rows(into: Path) -> list[Any]:
    return [json.loads(line) for file in sorted(into.iterdir()) for line in file.read_text().splitlines()]


def body(value: Any, **headers: str) -> Answer:
    return Answer(json.dumps(value), headers={"Content-Type": "application/json", **headers})


def numbered(first: int, count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(first, first + count)]


def test_one_page(server: Server, tmp_path: Path) -> None:
    server.routes["/rows"] = body(numbered(0, 3))
    assert fetch(server, tmp_path, pagination={"style": "none"}) == {"pages": 1, "rows": 3, "bytes": 27, "more": False}
    assert rows(tmp_path) == numbered(0, 3)


def test_link_header(server: Server, tmp_path: Path) -> None:
    server.routes["/rows"] = body(numbered(0, 2), Link='</rows?after=1>; rel="next", </x>; rel="last"')
    server.routes["/rows?after=1"] = body(numbered(2, 1), Link='</rows>; rel="prev"')
    assert fetch(server, tmp_path)["pages"] == 2
    assert rows(tmp_path) == numbered(0, 3)


@pytest.mark.parametrize("written", ["{url}/rows?after=1", "/rows?after=1", "?after=1"])
def test_address_in_the_body(server: Server, tmp_path: Path, written: str) -> None:
    server.routes["/rows"] = body(
        {"data": {"items": numbered(0, 2)}, "links": {"next": written.format(url=server.url)}}
    )
    server.routes["/rows?after=1"] = body({"data": {"items": numbered(2, 1)}, "links": {"next": None}})
    fetch(server, tmp_path, records="data.items", pagination={"next": "links.next"})
    assert rows(tmp_path) == numbered(0, 3)


def test_cursor(server: Server, tmp_path: Path) -> None:
    server.routes["/rows?lang=en"] = body({"rows": numbered(0, 2), "meta": {"next": "a/b=&"}})
    server.routes["/rows?lang=en&after=a%2Fb%3D%26"] = body({"rows": numbered(2, 2), "meta": {"next": 7}})
    server.routes["/rows?lang=en&after=7"] = body({"rows": [], "meta": {}})
    pagination = {"style": "cursor", "next": "meta.next", "parameter": "after"}
    found = fetch(server, tmp_path, params={"lang": "en"}, pagination=pagination)
    assert (found["pages"], rows(tmp_path)) == (3, numbered(0, 4))


def test_pages_are_counted_until_one_is_empty(server: Server, tmp_path: Path) -> None:
    pagination = {"style": "page", "start": 0, "size": 2, "size_parameter": "per"}
    server.routes |= {f"/rows?per=2&page={n}": body(numbered(2 * n, 2) if n < 3 else []) for n in range(4)}
    assert fetch(server, tmp_path, pagination=pagination) == {"pages": 4, "rows": 6, "bytes": 54, "more": False}
    assert rows(tmp_path) == numbered(0, 6)


def test_offsets_follow_what_came_and_not_what_was_asked_for(server: Server, tmp_path: Path) -> None:
    server.routes |= {f"/rows?offset={n}": body(numbered(n, min(2, 5 - n))) for n in (0, 2, 4, 5)}
    fetch(server, tmp_path, pagination={"style": "offset", "parameter": "offset", "size": 100})
    assert rows(tmp_path) == numbered(0, 5)


def test_max_pages(server: Server, tmp_path: Path) -> None:
    server.routes["/rows"] = lambda asked: body(numbered(int(asked.path.partition("=")[2]), 1))
    found = fetch(server, tmp_path, pagination={"style": "page"}, max_pages=4)
    assert (found["pages"], found["more"], len(server.asked)) == (4, True, 4)


def test_a_busy_page_is_asked_again(server: Server, tmp_path: Path) -> None:
    answers = [Answer("later", 429, {"Retry-After": "0"}), body(numbered(0, 1))]
    server.routes["/rows"] = lambda _: answers.pop(0)
    assert fetch(server, tmp_path)["rows"] == 1


def test_values_stay_as_they_came(server: Server, tmp_path: Path) -> None:
    values = '[{"b": 12345678901234567890, "a": 1.5, "é": "\\ud800"}, [1], "x", null, {"t": "a\\u2028b\\n"}]'
    server.routes["/rows"] = Answer(values)
    assert fetch(server, tmp_path)["rows"] == 5
    lines = (tmp_path / "rows-00000.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == json.loads(values)
    assert list(json.loads(lines[0])) == ["b", "a", "é"]


def test_files_roll_over(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "FILE_BYTES", 20)
    server.routes["/rows"] = body(numbered(0, 5))
    fetch(server, tmp_path)
    assert [len(file.read_text().splitlines()) for file in sorted(tmp_path.iterdir())] == [3, 2]


def test_no_rows_are_an_empty_file(server: Server, tmp_path: Path) -> None:
    server.routes["/rows"] = body([])
    assert fetch(server, tmp_path)["rows"] == 0
    assert (tmp_path / "rows-00000.jsonl").read_bytes() == b""


# ---------------------------------------------------------------- secrets


def test_the_environment_fills_headers_and_parameters(server: Server, tmp_path: Path) -> None:
    server.routes["/rows"] = body([])
    fetch(
        server,
        tmp_path,
        {"TOKEN": "hush", "KEY": "a&b"},
        headers={"Authorization": "Bearer ${TOKEN}"},
        params={"key": "${KEY}"},
    )
    assert server.asked[0].headers["Authorization"] == "Bearer hush"
    assert server.paths == ["/rows?key=a%26b"]


@pytest.mark.parametrize("environment", [{}, {"TOKEN": ""}, {"TOKEN": "hu\nsh"}, {"TOKEN": "hush\u2026"}])
def test_a_value_that_cannot_be_used_is_named_and_not_shown(
    server: Server, tmp_path: Path, environment: dict[str, str]
) -> None:
    with pytest.raises(SourceError, match="TOKEN") as error:
        fetch(server, tmp_path, environment, headers={"Authorization": "Bearer ${TOKEN}"})
    assert "hu" not in str(error.value)
    assert server.asked == []


def test_secrets_are_in_no_message_and_no_file(server: Server, tmp_path: Path) -> None:
    def nosy(asked: Asked) -> Answer:
        return Answer(status=302, headers={"Location": f"/{asked.headers['Authorization'].replace(' ', '/')}?k=hush"})

    for route in (Answer("no", 401), Answer("no"), body({"hush": 1}), nosy):
        server.routes["/rows"] = route
        with pytest.raises(SourceError) as error:
            fetch(server, tmp_path, {"T": "hush"}, headers={"Authorization": "Bearer ${T}"}, params={"k": "${T}"})
        assert "hush" not in str(error.value)
        assert error.value.__context__ is None or error.value.__suppress_context__
    assert all(b"hush" not in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("next_page", ["http://other.example/rows", "https://{place}/rows", "http://127.0.0.1:1/rows"])
def test_another_host_is_not_followed(server: Server, tmp_path: Path, next_page: str) -> None:
    server.routes["/rows"] = body({"rows": [{}], "next": next_page.format(place=server.address)})
    with pytest.raises(SourceError, match="alone gets the headers"):
        fetch(server, tmp_path)


# ---------------------------------------------------------------- servers that go wrong


@pytest.mark.parametrize("style", ["link", "cursor", "page", "offset"])
def test_circles_are_refused(server: Server, tmp_path: Path, style: str) -> None:
    server.routes["/rows"] = body({"rows": numbered(0, 2), "next": "/rows" if style == "link" else "same"})
    with pytest.raises(SourceError, match="circles"):
        fetch(server, tmp_path, pagination={"style": style})
    assert len(server.asked) <= 2


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer("<html>", headers={"Content-Type": "text/html"}), "text/html; as JSON"),
        (Answer(b"\xff\xfe\xfa"), "as JSON"),
        (Answer("[" * 100_000), "nested too deeply"),
        (Answer("[" + "9" * 10_000 + "]"), "a number too long"),
        (Answer("[1"), "as JSON"),
        (Answer("", 204), "status 204"),
        (Answer("gone", 404), "status 404"),
        (body(17), "a body of type int"),
        (body({"a": 1}), "0 lists in a body with the keys 'a'"),
        (body({"a": [], "b": []}), "2 lists in a body with the keys 'a', 'b'"),
        (body({"rows": [], "next": {}}), "type dict at `next`"),
    ],
)
def test_a_page_that_is_not_as_expected(server: Server, tmp_path: Path, answer: Answer, found: str) -> None:
    server.routes["/rows"] = answer
    with pytest.raises(SourceError) as error:
        fetch(server, tmp_path)
    assert found in error.value.found


def test_no_list_at_the_path(server: Server, tmp_path: Path) -> None:
    server.routes["/rows"] = body({"data": {"items": {}}})
    with pytest.raises(SourceError, match=r"dict at `data.items` in a body with the keys 'data'"):
        fetch(server, tmp_path, records="data.items")


def test_errors_of_the_connection_keep_their_reason(tmp_path: Path) -> None:
    source = RestSource(type="rest", url="gopher://public.example/", pagination=Pagination(style="none"))
    with pytest.raises(FetchError) as error:
        rest.acquire(source, tmp_path, environment={}, allowed=frozenset())
    assert error.value.reason == "address"
