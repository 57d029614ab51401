"""Sources of type `web`: pages fetched politely, and a line for every address that was met and not kept.

Pages are visited in rounds: first the start pages and sitemaps, then what they link to, and so on. Within a round each
host gets one request at a time, and hosts are asked side by side; what belongs to a round is decided in the order of
addresses before it starts. So the same sites give the same files, whichever host answers first.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from flywheel.errors import SourceError
from flywheel.recipe_sources import WebSource
from flywheel.sources.addresses import authority, parse, shown
from flywheel.sources.listing import matcher
from flywheel.sources.pages import FETCHED, INDEX
from flywheel.sources.site import Crawl, Site, Visit, normal

_T = TypeVar("_T")

MAX_KNOWN = 100_000
"""Addresses that are remembered besides `max_pages`; what is met beyond them is only counted (`left`)."""
MAX_HOPS = 5
"""Redirects in a row."""
_OUTAGE = frozenset(("address", "unknown_host", "unreachable", "timeout", "robots_unreachable", "gave_up"))
"""Reasons of pages when a source could not be had at all."""


def acquire(
    source: WebSource,
    into: Path,
    *,
    environment: Mapping[str, str],
    allowed: frozenset[str],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Fetch pages into `into` as `flywheel.sources.pages` describes, in the order of their addresses.

    `allowed` names `host:port` pairs that may be asked although they are not public. Returns `pages`, `bytes`, `left`
    (addresses met, but beyond `max_pages`), and `reasons` → count of pages that were not kept.
    Raises SourceError where no host could be reached.
    """
    into.mkdir(parents=True, exist_ok=True)
    crawl = _Crawl(source, into, allowed, sleep)
    try:
        crawl.run()
    finally:
        crawl.close()
    return _written(crawl, into)


@dataclass(frozen=True, order=True)
class _Step:
    """An address to visit."""

    url: str
    start: bool = field(default=False, compare=False)
    """Whether the recipe names it: it is visited for its links even where `include` does not want it."""
    hops: int = field(default=0, compare=False)
    """Redirects that led here."""


class _Crawl:
    """What is known so far."""

    def __init__(self, source: WebSource, into: Path, allowed: frozenset[str], sleep: Callable[[float], None]) -> None:
        self.source = source
        self.starts = [normal(parse(url)) for url in source.urls]
        self.visits: dict[str, Visit] = {}
        self.left = 0
        self._known = set(self.starts)
        self._included, self._excluded = matcher(source.include), matcher(source.exclude)
        self._asked = 0
        # A site is a host with its port; http and https of one host are asked by the same client, one at a time.
        names = dict.fromkeys(map(_site, self.starts))
        shared = Crawl(allowed, sleep, lambda url: _site(url) in names)
        self._sites = {name: Site(source, into, shared) for name in names}

    def close(self) -> None:
        for site in self._sites.values():
            site.close()

    def run(self) -> None:
        steps = [_Step(url, start=True) for url in dict.fromkeys(self.starts)]
        if self.source.sitemap:
            found = self._side_by_side(steps, Site.sitemaps)
            steps += self._steps(url for urls in found for url in urls)
        for depth in range(self.source.max_depth + 1):
            following: list[_Step] = []
            while steps:
                visits = self._round(steps)
                following += self._steps(link for _, visit in visits for link in visit.links)
                steps = self._redirected(visits)
            if depth == self.source.max_depth or not following:
                return
            steps = sorted(following)

    def _round(self, steps: Sequence[_Step]) -> list[tuple[_Step, Visit]]:
        """Visit addresses, as many as `max_pages` leaves; the others get their reason."""
        self._side_by_side(steps, Site.learn)
        chosen: list[_Step] = []
        for step in steps:
            reason, detail = self._refusal(step)
            if reason:
                self.visits[step.url] = Visit(step.url, reason, detail)
            elif self._asked < self.source.max_pages:
                self._asked += 1
                chosen.append(step)
            else:
                self.left += 1
        done = self._side_by_side(chosen, lambda site, urls: [site.visit(url) for url in urls])
        visits = {visit.url: visit for share in done for visit in share}
        for step in chosen:
            if visits[step.url].file and not self._included(httpx.URL(step.url).path):
                visits[step.url].leave_out("excluded")
            self.visits[step.url] = visits[step.url]
        return [(step, visits[step.url]) for step in chosen]

    def _refusal(self, step: _Step) -> tuple[str, str]:
        path = httpx.URL(step.url).path
        if self._excluded(path) or not (step.start or self._included(path)):
            return "excluded", ""
        return self._sites[_site(step.url)].refusal(step.url)

    def _steps(self, urls: Iterable[str]) -> list[_Step]:
        """New addresses on our hosts, in order."""
        found = []
        for url in sorted(set(urls) - self._known):
            if _site(url) not in self._sites:
                continue
            if len(self._known) >= self.source.max_pages + MAX_KNOWN:
                self.left += 1
                continue
            self._known.add(url)
            found.append(_Step(url))
        return found

    def _redirected(self, visits: Sequence[tuple[_Step, Visit]]) -> list[_Step]:
        """Where redirects point to, at the depth of those that they replace."""
        found = []
        for step, visit in visits:
            if not visit.target:
                continue
            if _site(visit.target) not in self._sites:
                visit.reason = "redirect_elsewhere"
            elif step.hops == MAX_HOPS:
                visit.reason = "too_many_redirects"
            else:
                found += [_Step(s.url, step.start, step.hops + 1) for s in self._steps([visit.target])]
        return sorted(found)

    def _side_by_side(self, steps: Sequence[_Step], work: Callable[[Site, list[str]], _T]) -> list[_T]:
        """Do something with each site's share of some addresses, `concurrency` sites at a time."""
        shares: dict[str, list[str]] = {}
        for step in steps:
            shares.setdefault(_site(step.url), []).append(step.url)
        with ThreadPoolExecutor(self.source.concurrency) as pool:
            return list(pool.map(lambda name: work(self._sites[name], shares[name]), sorted(shares)))


def _site(url: str) -> str:
    """`host`, with the port where it is not that of the scheme."""
    found = httpx.URL(url)
    return found.host if found.port is None else authority(found)


# ---------------------------------------------------------------- what is written


def _written(crawl: _Crawl, into: Path) -> dict[str, Any]:
    """Number the pages that stay, in the order of addresses, and write the index."""
    ordered = [crawl.visits[url] for url in sorted(crawl.visits)]
    _leave_out_copies(ordered, {visit.url: visit for visit in ordered})
    reasons = Counter(visit.reason for visit in ordered if not visit.file)
    pages = [(visit, visit.file) for visit in ordered if visit.file]
    if not pages and set(reasons) <= _OUTAGE:
        raise _nothing(crawl.source, ordered)
    size = 0
    for number, (visit, file) in enumerate(pages):
        visit.file = file.rename(into / f"{number:05d}{file.suffix}")
        size += visit.file.stat().st_size
    index = "".join(json.dumps(_line(visit), ensure_ascii=False) + "\n" for visit in ordered)
    (into / INDEX).write_text(index, encoding="utf-8")
    times = {visit.url: visit.fetched for visit in ordered if visit.fetched}
    (into / FETCHED).write_text(json.dumps(times, indent=0, ensure_ascii=False), encoding="utf-8")
    return {"pages": len(pages), "bytes": size, "left": crawl.left, "reasons": dict(sorted(reasons.items()))}


def _leave_out_copies(ordered: Sequence[Visit], known: Mapping[str, Visit]) -> None:
    """Leave out pages that name another as the right address, if that one is here and names no other itself."""
    for visit in ordered:
        other = known.get(visit.canonical)
        if visit.file and other and other.file and other is not visit and other.canonical in ("", other.url):
            visit.leave_out("duplicate", other.url)


def _line(visit: Visit) -> dict[str, Any]:
    if visit.file:
        kept = {"file": visit.file.name, "status": visit.status, "content_type": visit.content_type}
        return {"url": visit.url, **kept, "license": visit.license}
    return {"url": visit.url, "reason": visit.reason, "detail": visit.detail}


def _nothing(source: WebSource, visits: Sequence[Visit]) -> SourceError:
    first = visits[0]
    return SourceError(
        f"web pages from {', '.join(map(shown, source.urls))}"[:300],
        found=f"no page; {shown(first.url)}: {first.reason} ({first.detail})",
        expected="a site that answers",
        remedy="look whether the addresses open in a browser; FLYWHEEL_ALLOWED_HOSTS names hosts that are not public",
    )
