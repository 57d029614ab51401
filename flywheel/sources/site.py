"""One site of a crawl: its robots.txt, its sitemaps, and its pages, one request at a time with a pause between two."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.parsers import expat

import httpx

from flywheel.errors import FetchError
from flywheel.recipe_sources import WebSource
from flywheel.sources import robots
from flywheel.sources.addresses import authority, parse
from flywheel.sources.http import BUSY, MOVED, TRANSIENT, Client, Limits, Response, inflate, join
from flywheel.sources.tags import Look, asked, decode, look

NAME = "flywheel"
"""What robots.txt and robots tags call us."""
MAX_DELAY = 60.0
"""Seconds of a Crawl-delay that are waited; a site that asks for more is left alone (`crawl_delay`)."""
MAX_FAILURES = 5
"""Pages in a row that fail or find the server busy; after them it is asked no more (`gave_up`)."""
MAX_LINKS, MAX_URL = 50_000, 2_000
"""New addresses that one site may name, and characters of an address."""
MAX_SITEMAPS, MAX_SITEMAP_URLS, MAX_SITEMAP_BYTES = 50, 50_000, 50 << 20
"""Of one site: files, addresses, and bytes of a file."""
MAX_SITEMAP_DEPTH = 20
KINDS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "application/pdf": ".pdf",
}
"""Content types that are kept → ending of the file."""


@dataclass
class Visit:
    """What became of an address: a file, or the reason why there is none."""

    url: str
    reason: str = ""
    detail: str = ""
    status: int = 0
    content_type: str = ""
    license: str = ""
    fetched: str = ""
    file: Path | None = None
    links: list[str] = field(default_factory=list)
    target: str = ""
    """Where a redirect points to."""
    canonical: str = ""
    """Which address the page itself calls the right one."""

    def leave_out(self, reason: str, detail: str = "") -> None:
        if self.file:
            self.file.unlink()
        self.file, self.reason, self.detail = None, reason, detail


@dataclass(frozen=True)
class Crawl:
    """What all sites of a crawl share."""

    allowed: frozenset[str]
    sleep: Callable[[float], None]
    ours: Callable[[str], bool]
    """Whether an address lies on one of the sites."""


class Site:
    """A host and its rules. `refusal` may be asked once `learn` has seen the address."""

    def __init__(self, source: WebSource, into: Path, crawl: Crawl) -> None:
        limits = Limits(attempts=3, seconds=60, backoff=max(0.5, 2 * source.delay))
        self._client = Client(crawl.allowed, limits, sleep=crawl.sleep)
        self._into, self._crawl, self._delay = into, crawl, source.delay
        self._met: set[str] = set()
        self._failures = 0
        self._robots: dict[str, robots.Robots] = {}
        self._refused: dict[str, tuple[str, str]] = {}
        self._asked = False

    def close(self) -> None:
        self._client.close()

    def _get(self, url: str, follow: bool) -> Response:
        if self._asked and self._delay:
            self._crawl.sleep(self._delay)
        self._asked = True
        return self._client.get(url, follow=follow, wanted=None if follow else _wanted)

    # ------------------------------------------------------------ robots.txt

    def learn(self, urls: Iterable[str]) -> None:
        """Fetch the robots.txt that rule some addresses, unless that was done."""
        for origin in dict.fromkeys(map(_origin, urls)):
            if origin not in self._robots and origin not in self._refused:
                self._learn(origin)

    def _learn(self, origin: str) -> None:
        try:
            found = self._get(f"{origin}/robots.txt", follow=True)
        except FetchError as error:
            if error.reason == "too_many_redirects":  # RFC 9309 takes it for a site without rules
                self._robots[origin] = robots.Robots()
            else:
                reason = error.reason if error.reason in ("address", "unknown_host") else "robots_unreachable"
                self._refused[origin] = reason, error.found
            return
        if found.status == 429 or found.status >= 500:
            self._refused[origin] = "robots_unreachable", f"status {found.status}"
            return
        rules = robots.parse(found.body, NAME) if found.status == 200 else robots.Robots()
        if rules.delay > MAX_DELAY:
            self._refused[origin] = "crawl_delay", f"{rules.delay:.0f} s between two requests"
        self._robots[origin] = rules
        self._delay = max(self._delay, min(rules.delay, MAX_DELAY))

    def refusal(self, url: str) -> tuple[str, str]:
        """Why an address must not be fetched, as reason and detail; two empty texts where it may."""
        origin = _origin(url)
        if origin in self._refused:
            return self._refused[origin]
        allowed = self._robots[origin].allow(httpx.URL(url).raw_path.decode("ascii"))
        return ("", "") if allowed else ("robots", "")

    # ------------------------------------------------------------ sitemaps

    def sitemaps(self, starts: Sequence[str]) -> list[str]:
        """The addresses in the sitemaps that robots.txt names, or else in /sitemap.xml, and in those they name."""
        waiting: list[str] = []
        self.learn(starts)
        for origin in dict.fromkeys(map(_origin, starts)):
            if origin not in self._refused:
                waiting += self._robots[origin].sitemaps or [f"{origin}/sitemap.xml"]
        seen: set[str] = set()
        found: dict[str, None] = {}
        while waiting and len(seen) < MAX_SITEMAPS and len(found) < MAX_SITEMAP_URLS:
            place = waiting.pop(0)
            if place in seen or not _same_site(place, starts):
                continue
            seen.add(place)
            for is_page, url in self._sitemap(place):
                if is_page:
                    found[url] = None
                else:
                    waiting.append(url)
        return list(found)[:MAX_SITEMAP_URLS]

    def _sitemap(self, place: str) -> Iterator[tuple[bool, str]]:
        try:
            response = self._get(place, follow=True)
            body = response.body
            if body.startswith(b"\x1f\x8b"):
                body = inflate(body, "gzip", MAX_SITEMAP_BYTES)
        except (FetchError, ValueError, OverflowError):
            return
        if response.status == 200:
            for is_page, written in _locations(body):
                if url := absolute(response.url, written):
                    yield is_page, url

    # ------------------------------------------------------------ pages

    def visit(self, url: str) -> Visit:
        """Fetch one address; redirects are not followed."""
        if self._failures >= MAX_FAILURES:
            return Visit(url, "gave_up", f"{MAX_FAILURES} pages of this site failed in a row")
        try:
            response = self._get(url, follow=False)
        except FetchError as error:
            self._failures += error.reason in TRANSIENT
            return Visit(url, error.reason, error.found)
        self._failures = self._failures + 1 if response.status in BUSY else 0
        visit = Visit(url, status=response.status, fetched=datetime.now(UTC).isoformat(timespec="seconds"))
        if response.status in MOVED and (place := response.headers.get("location")):
            visit.target = absolute(url, place)
            visit.leave_out("redirect" if visit.target else "address", visit.target)
        elif response.status != 200:
            visit.leave_out(f"http_{response.status}")
        else:
            self._keep(visit, response)
        return visit

    def _keep(self, visit: Visit, response: Response) -> None:
        visit.content_type, charset = _content_type(response.headers)
        kind = _kind(visit.content_type, response.body)
        if not kind:
            visit.leave_out("content_type", visit.content_type[:100])
            return
        body, page, seen = response.body, "", Look()
        if kind != ".pdf":
            page = decode(body, charset)
            # What the server says of the encoding would be lost with its headers.
            if charset and page.encode(errors="replace") != body:
                body = codecs.BOM_UTF8 + page.encode(errors="replace")
        if kind == ".html":
            seen = look(page, NAME)
        asks = seen.asks.union(*(asked(value, NAME) for value in response.headers.get_list("x-robots-tag")))
        base = absolute(visit.url, seen.base) or visit.url
        visit.license = seen.license
        visit.canonical = absolute(base, seen.canonical) if seen.canonical else ""
        if "nofollow" not in asks:
            visit.links = self._new(absolute(base, link) for link in [*seen.links, visit.canonical] if link)
        for reason in ("noindex", "noai"):
            if reason in asks:
                visit.leave_out(reason)
                return
        visit.file = self._into / f".{hashlib.sha256(visit.url.encode()).hexdigest()}{kind}"
        visit.file.write_bytes(body)

    def _new(self, urls: Iterable[str]) -> list[str]:
        """Addresses of ours that this site has not named before, up to a number."""
        found = []
        for url in urls:
            if (
                len(self._met) < MAX_LINKS
                and 0 < len(url) <= MAX_URL
                and url not in self._met
                and self._crawl.ours(url)
            ):
                self._met.add(url)
                found.append(url)
        return found


# ---------------------------------------------------------------- addresses


def normal(url: httpx.URL) -> str:
    """One spelling of an address: a path, and no fragment, default port, or dot after the host."""
    return str(url.copy_with(host=url.host.rstrip("."), fragment=None, raw_path=url.raw_path))


def absolute(base: str, written: str) -> str:
    """The address of a link, in the normal spelling; empty where it may not be asked."""
    try:
        return normal(join(httpx.URL(base), written))
    except FetchError:
        return ""


def _origin(url: str) -> str:
    found = httpx.URL(url)
    return f"{found.scheme}://{found.netloc.decode('ascii')}"


def _same_site(place: str, starts: Sequence[str]) -> bool:
    try:
        return authority(parse(place)) in {authority(httpx.URL(url)) for url in starts}
    except FetchError:
        return False


# ---------------------------------------------------------------- bodies


def _wanted(status: int, headers: httpx.Headers) -> bool:
    kind, _ = _content_type(headers)
    return status == 200 and (kind in KINDS or not kind)


def _content_type(headers: httpx.Headers) -> tuple[str, str]:
    """Type and charset, in lower case."""
    kind, _, rest = headers.get("content-type", "").lower().partition(";")
    _, _, charset = rest.partition("charset=")
    return kind.strip(), charset.partition(";")[0].strip(" \"'")


def _kind(content_type: str, body: bytes) -> str:
    """The ending of the file; empty for what is not kept. Servers call PDF all sorts of things, or say nothing."""
    start = body[:1_024].lstrip()
    if start.startswith(b"%PDF-"):
        return ".pdf"
    return KINDS.get(content_type, "") if content_type else ".html" if start.startswith(b"<") else ""


def _locations(body: bytes) -> list[tuple[bool, str]]:
    """Whether it is a page (else a sitemap), and its address, for each in a sitemap, as far as that can be read."""
    found: list[tuple[bool, str]] = []
    stack: list[str] = []
    text: list[str] = []

    def start(tag: str, _: object) -> None:
        if len(stack) > MAX_SITEMAP_DEPTH:
            raise ValueError("nested too deeply for a sitemap")
        stack.append(tag.rpartition(" ")[2])
        text.clear()

    def end(_: str) -> None:
        if stack.pop() == "loc" and stack and stack[-1] in ("url", "sitemap") and len(found) < MAX_SITEMAP_URLS:
            found.append((stack[-1] == "url", "".join(text).strip()))

    def doctype(*_: object) -> None:
        raise ValueError("a sitemap needs no declarations; entities could grow without end")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text.append, doctype
    with suppress(expat.ExpatError, ValueError, LookupError):
        parser.Parse(body, True)
    return found
