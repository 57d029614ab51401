"""Sources of type `rest`: all pages of a JSON API, in order, as files of rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote, quote_plus

import httpx

from flywheel.errors import FetchError, SourceError
from flywheel.recipe_sources import Pagination, RestSource
from flywheel.sources.addresses import authority, parse, shown
from flywheel.sources.http import Client, Response, join

FILE_BYTES = 64 << 20
"""A new file begins with the row after the one that reaches it."""

_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def acquire(
    source: RestSource, into: Path, *, environment: Mapping[str, str], allowed: frozenset[str]
) -> dict[str, Any]:
    """Fetch the rows into `rows-00000.jsonl`, ...: one JSON value a line, in the order of the server.

    `environment` fills `${NAME}` in headers and parameters; the values show up in no message. `allowed` names
    `host:port` pairs that may be asked although they are not public. Returns `pages`, `rows`, `bytes`, and `more`:
    whether `max_pages` ended it before the server did. Raises SourceError where a page is not as expected.
    """
    secrets: set[str] = set()
    headers = _filled(source.headers, environment, "header", secrets)
    params = _filled(source.params, environment, "parameter", secrets)
    try:
        with Client(allowed) as client, _Rows(into) as rows:
            pages, more = 0, False
            for page in _pages(source, client, headers, params):
                for row in page.rows:
                    rows.write(row)
                pages, more = pages + 1, page.more
    except SourceError as error:
        raise _without(secrets, error) from None
    return {"pages": pages, "rows": rows.rows, "bytes": rows.bytes, "more": more}


# ---------------------------------------------------------------- pages


@dataclass(frozen=True)
class _Page:
    rows: list[Any]
    more: bool
    """Whether another follows."""


@dataclass(frozen=True)
class _Place:
    """What to ask for."""

    url: httpx.URL
    number: int
    """Of the page, or of its first row."""


@dataclass(frozen=True)
class _Answer:
    """What came back."""

    place: _Place
    response: Response
    body: Any
    rows: list[Any]


def _pages(
    source: RestSource, client: Client, headers: Mapping[str, str], params: Mapping[str, str]
) -> Iterator[_Page]:
    style, first = source.pagination, parse(source.url)
    fixed = {**params, style.size_parameter: str(style.size)} if style.size_parameter else params
    place = _numbered(_Place(_with(first, fixed), style.start if style.style == "page" else 0), style)
    seen, last = {str(place.url)}, b""
    for number in range(1, source.max_pages + 1):
        response = client.get(str(place.url), headers)
        body = _body(response)
        rows = _rows(body, source.records, response.url)
        if style.style in ("page", "offset") and len(rows) > 1 and response.body == last:
            raise _circles(place.url)
        following = NEXT[style.style](_Answer(place, response, body, rows), style)
        yield _Page(rows, following is not None)
        if following is None or number == source.max_pages:
            return
        place, last = replace(following, url=_with(following.url, fixed, keep=True)), response.body
        _refuse_stranger(place.url, first)
        if str(place.url) in seen:
            raise _circles(place.url)
        seen.add(str(place.url))


def _link(answer: _Answer, style: Pagination) -> _Place | None:
    here = httpx.URL(answer.response.url)
    links = httpx.Response(200, headers=answer.response.headers).links
    for relation, link in links.items():
        if "next" in str(relation).lower().split() and link.get("url"):
            return replace(answer.place, url=join(here, link["url"]))
    token = _at(answer.body, style.next)
    if token is None or token == "":
        return None
    if not isinstance(token, str):
        raise _unusable(answer, style, token, "an address")
    return replace(answer.place, url=join(here, token))


def _cursor(answer: _Answer, style: Pagination) -> _Place | None:
    token = _at(answer.body, style.next)
    if token is None or token == "" or token is False:
        return None
    if isinstance(token, bool) or not isinstance(token, str | int):
        raise _unusable(answer, style, token, "a token")
    return replace(answer.place, url=_with(answer.place.url, {style.parameter: str(token)}))


def _next_page(answer: _Answer, style: Pagination) -> _Place | None:
    if not answer.rows:
        return None
    return _numbered(replace(answer.place, number=answer.place.number + 1), style)


def _next_offset(answer: _Answer, style: Pagination) -> _Place | None:
    """Further by as many rows as came: a server may give fewer than it was asked for."""
    if not answer.rows:
        return None
    return _numbered(replace(answer.place, number=answer.place.number + len(answer.rows)), style)


NEXT: dict[str, Callable[[_Answer, Pagination], _Place | None]] = {
    "none": lambda answer, style: None,
    "link": _link,
    "cursor": _cursor,
    "page": _next_page,
    "offset": _next_offset,
}
"""Style of pagination → where the next page is; None after the last."""


def _numbered(place: _Place, style: Pagination) -> _Place:
    if style.style not in ("page", "offset"):
        return place
    return replace(place, url=_with(place.url, {style.parameter: str(place.number)}))


def _with(url: httpx.URL, params: Mapping[str, str], keep: bool = False) -> httpx.URL:
    """The address with query parameters set, each once; `keep` leaves those it has."""
    for name, value in params.items():
        if not (keep and name in url.params):
            url = url.copy_set_param(name, value)
    return url


def _refuse_stranger(url: httpx.URL, first: httpx.URL) -> None:
    if (url.scheme, authority(url)) != (first.scheme, authority(first)):
        raise SourceError(
            f"next page of {shown(str(first))}",
            found=f"{url.scheme}://{authority(url)}",
            expected=f"{first.scheme}://{authority(first)}, which alone gets the headers of the source",
            remedy="write in `url` the address that the server itself uses",
        )


def _circles(url: httpx.URL) -> SourceError:
    return SourceError(
        f"next page of {shown(str(url))}",
        found="a page that came before: the pages go in circles",
        expected="every page once",
        remedy="check `next`, `parameter` and `style` of `pagination`",
    )


# ---------------------------------------------------------------- bodies


def _body(response: Response) -> Any:
    kind = response.headers.get("content-type", "no content type")[:100]
    if response.status != 200:
        raise SourceError(
            f"page {shown(response.url)}",
            found=f"status {response.status}",
            expected="status 200",
            remedy="check the credentials in `headers`" if response.status in (401, 403) else "check `url`",
        )
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"page {shown(response.url)}",
            found=f"{len(response.body)} bytes of {kind}; as JSON: {_why(error)}",
            expected="JSON",
            remedy="point `url` at the API itself",
        ) from None


def _why(error: Exception) -> str:
    """What was wrong, without a word of the body."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return {RecursionError: "nested too deeply", UnicodeDecodeError: "not UTF-8"}.get(type(error), "a number too long")


def _rows(body: Any, path: str, url: str) -> list[Any]:
    if path:
        found = _at(body, path)
        if isinstance(found, list):
            return found
        seen = f"{'nothing' if found is None else f'type {type(found).__name__}'} at `{path}`{_keys(body)}"
    else:
        lists = {k: v for k, v in body.items() if isinstance(v, list)} if isinstance(body, dict) else {"": body}
        if len(lists) == 1 and isinstance(found := next(iter(lists.values())), list):
            return found
        seen = f"{len(lists)} lists{_keys(body)}" if isinstance(body, dict) else f"a body of type {type(body).__name__}"
    raise SourceError(
        f"page {shown(url)}",
        found=seen,
        expected="a list of rows",
        remedy="say with `records` where in the body it is: `records: data.items`",
    )


def _keys(body: Any) -> str:
    return f" in a body with the keys {', '.join(map(repr, list(body)[:10]))}"[:300] if isinstance(body, dict) else ""


def _at(body: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def _unusable(answer: _Answer, style: Pagination, token: Any, expected: str) -> SourceError:
    return SourceError(
        f"page {shown(answer.response.url)}",
        found=f"type {type(token).__name__} at `{style.next}`",
        expected=f"{expected} of the next page, or nothing",
        remedy="say with `pagination.next` where in the body it is",
    )


# ---------------------------------------------------------------- secrets and files


def _filled(texts: Mapping[str, str], environment: Mapping[str, str], what: str, secrets: set[str]) -> dict[str, str]:
    """Headers or parameters with their `${NAME}`s replaced; the values are added to `secrets`."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        found = environment.get(name, "").strip()
        if not found or not found.isprintable() or (what == "header" and not found.isascii()):
            raise SourceError(
                f"{what} that needs ${{{name}}}",
                found=f"the environment variable {name} is {'not set' if not found else 'not a line of plain text'}",
                expected=f"a value for ${{{name}}}",
                remedy=f"set {name}",
            )
        secrets.add(found)
        return found

    return {key: _NAME.sub(value, text) for key, text in texts.items()}


def _without(secrets: set[str], error: SourceError) -> SourceError:
    """The error without the secrets, which a server may have sent back in an address."""
    written = sorted({w for s in secrets for w in (s, quote(s, safe=""), quote_plus(s))}, key=len, reverse=True)

    def hidden(text: str) -> str:
        for secret in written:
            text = text.replace(secret, "...")
        return text

    texts = {name: hidden(getattr(error, name)) for name in ("found", "expected", "remedy")}
    if isinstance(error, FetchError):
        return FetchError(hidden(error.thing), reason=error.reason, **texts)
    return SourceError(hidden(error.thing), **texts)


class _Rows:
    """Rows as JSON Lines in files of about FILE_BYTES; there is always a first file."""

    def __init__(self, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        self.rows = self.bytes = 0
        self._into, self._files = into, 0
        self._file = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, row: Any) -> None:
        if self._file.tell() >= FILE_BYTES:
            self._file.close()
            self._file = self._open()
        line = _line(row)
        self._file.write(line)
        self.rows += 1
        self.bytes += len(line)

    def _open(self) -> IO[bytes]:
        self._files += 1
        return (self._into / f"rows-{self._files - 1:05d}.jsonl").open("wb")


def _line(row: Any) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can hold
        return json.dumps(row).encode() + b"\n"
