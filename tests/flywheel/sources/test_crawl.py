import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import SourceError
from flywheel.recipe_sources import WebSource
from flywheel.record import Dropped, Outcome, Quarantined, Record
from flywheel.sources import crawl, pages
from flywheel.sources.http import AGENT
from tests.flywheel.sources.web_server import Answer, Route, Server, serve

TEXT = {"Content-Type": "text/plain"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serve({"/robots.txt": Answer("", headers=TEXT)}) as running:
        yield running


def fetch(server: Server, into: Path, slept: list[float] | None = None, **changes: Any) -> dict[str, Any]:
    source = WebSource(type="web", **{"urls": (f"{server.url}/",), "delay": 0, "sitemap": False, **changes})
    sleep = [].append if slept is None else slept.append
    return crawl.acquire(source, into, environment={}, allowed=server.allowed, sleep=sleep)


def index(into: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (into / "index.jsonl").read_text().splitlines()]


def fates(server: Server, into: Path) -> dict[str, str]:
    """Path → file or reason."""
    return {page["url"].removeprefix(server.url): page.get("file") or page["reason"] for page in index(into)}


def page(*links: str, head: str = "", text: str = "Words on a page.") -> str:
    return f"<html><head>{head}</head><body><p>{text}</p>{''.join(f'<a href={x!r}>x</a>' for x in links)}</body></html>"


def outcomes(into: Path, license: str = "CC0-1.0") -> list[Outcome]:
    source = WebSource(type="web", urls=("http://public.example/",), license=license)
    reader = pages.reader(source, "web", into)
    found: list[Outcome] = []
    for entry in reader.entries():
        found += [Dropped("", entry.fate, entry.name)] if entry.fate else reader.read(entry)
    return found


# ---------------------------------------------------------------- where it goes


def test_links_are_followed_to_a_depth(server: Server, tmp_path: Path) -> None:
    server.routes |= {
        "/": page("a", "/c#top"),
        "/a": page("b/"),
        "/b/": page("deep"),
        "/b/deep": page(),
        "/c": page("/"),
    }
    found = fetch(server, tmp_path, max_depth=2)
    assert fates(server, tmp_path) == {"/": "00000.html", "/a": "00001.html", "/b/": "00002.html", "/c": "00003.html"}
    assert found["pages"] == 4
    assert Counter(server.paths).most_common(1)[0][1] == 1
    assert {one.headers["User-Agent"] for one in server.asked} == {AGENT}


def test_other_hosts_are_left_alone(server: Server, tmp_path: Path) -> None:
    with serve({"/": page()}) as other:
        server.routes["/"] = page(
            other.url, "//public.example/x", "mailto:me@public.example", "javascript:void(0)", "ftp://x"
        )
        fetch(server, tmp_path)
        assert other.asked == []
    assert fates(server, tmp_path) == {"/": "00000.html"}


def test_several_hosts(server: Server, tmp_path: Path) -> None:
    with serve({"/": page("/x", server.url + "/from-other"), "/x": page()}) as other:
        server.routes |= {"/": page(), "/from-other": page()}
        source = WebSource(type="web", urls=(server.url, other.url), delay=0, sitemap=False)
        crawl.acquire(source, tmp_path, environment={}, allowed=server.allowed | other.allowed)
    assert sorted(p["url"] for p in index(tmp_path)) == sorted(
        (server.url + "/", server.url + "/from-other", other.url + "/", other.url + "/x")
    )


def test_max_pages_takes_the_first_in_order(server: Server, tmp_path: Path) -> None:
    server.routes |= {"/": page(*"edcba"), **{f"/{name}": page() for name in "abcde"}}
    assert fetch(server, tmp_path, max_pages=3)["left"] == 3
    assert list(fates(server, tmp_path)) == ["/", "/a", "/b"]
    assert len(server.asked) == 4


def test_include_and_exclude(server: Server, tmp_path: Path) -> None:
    server.routes |= {
        "/": page("/docs/a", "/blog", "/docs/old/b"),
        "/docs/a": page("/docs/old/c"),
        "/blog": page("/docs/x"),
    }
    fetch(server, tmp_path, include=("/docs/**",), exclude=("/docs/old/**",))
    excluded = dict.fromkeys(("/", "/blog", "/docs/old/b", "/docs/old/c"), "excluded")
    assert fates(server, tmp_path) == {**excluded, "/docs/a": "00000.html"}
    assert server.paths == ["/robots.txt", "/", "/docs/a"]


def test_base_and_one_spelling_of_addresses(server: Server, tmp_path: Path) -> None:
    server.routes |= {"/": page("a/../b?q=1", "b?q=1#x", "/d/./b?q=1", head="<base href=/d/>"), "/d/b?q=1": page()}
    fetch(server, tmp_path)
    assert list(fates(server, tmp_path)) == ["/", "/d/b?q=1"]


# ---------------------------------------------------------------- what sites ask


def test_robots_txt_is_obeyed(server: Server, tmp_path: Path) -> None:
    rules = "User-agent: *\nDisallow: /private\nAllow: /private/open\n"
    server.routes |= {
        "/robots.txt": Answer(rules, headers=TEXT),
        "/": page("/private/a", "/private/open"),
        "/private/open": page(),
    }
    assert fetch(server, tmp_path)["reasons"] == {"robots": 1}
    assert "/private/a" not in server.paths
    assert fates(server, tmp_path)["/private/a"] == "robots"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("", 404), ""),
        (Answer("", 403), ""),
        (Answer("", 500), "robots_unreachable"),
        (Answer("", 503), "robots_unreachable"),
        (Answer("", 429), "robots_unreachable"),
        (Answer(status=302, headers={"Location": "/robots.txt"}), ""),
        (Answer("user-agent: flywheel\ncrawl-delay: 86400"), "crawl_delay"),
        (Answer("user-agent: *\ndisallow: /"), "robots"),
    ],
)
def test_a_site_without_rules_and_one_whose_rules_cannot_be_had(
    server: Server, tmp_path: Path, answer: Answer, reason: str
) -> None:
    server.routes |= {"/robots.txt": answer, "/": page()}
    if reason == "robots_unreachable":
        with pytest.raises(SourceError, match="robots_unreachable"):
            fetch(server, tmp_path)
    else:
        fetch(server, tmp_path)
        assert fates(server, tmp_path) == {"/": reason or "00000.html"}
    assert ("/" in server.paths) == (not reason)


def test_a_pause_before_each_request_but_the_first(server: Server, tmp_path: Path) -> None:
    server.routes |= {"/": page("a", "b"), "/a": page(), "/b": page()}
    slept: list[float] = []
    fetch(server, tmp_path, slept, delay=1.5)
    assert slept == [1.5] * 3
    server.routes["/robots.txt"] = Answer("User-agent: *\nCrawl-delay: 4", headers=TEXT)
    slept.clear()
    fetch(server, tmp_path / "again", slept, delay=1.5)
    assert slept == [4.0] * 3


def test_a_busy_page_is_asked_again_when_it_says(server: Server, tmp_path: Path) -> None:
    answers = [Answer("later", 429, {"Retry-After": "9"}), Answer(page(), headers={"Content-Type": "text/html"})]
    server.routes["/"] = lambda _: answers.pop(0)
    slept: list[float] = []
    assert fetch(server, tmp_path, slept)["pages"] == 1
    assert slept == [9.0]


def test_a_site_that_keeps_failing_is_left_in_peace(server: Server, tmp_path: Path) -> None:
    server.routes |= {"/": page(*"abcdefgh"), **{f"/{name}": Answer("later", 503) for name in "abcdefgh"}}
    assert fetch(server, tmp_path)["reasons"] == {"http_503": 5, "gave_up": 3}
    assert not {"/f", "/g", "/h"} & set(server.paths)


@pytest.mark.parametrize(
    ("head", "headers", "fate", "followed"),
    [
        ("<meta name=robots content=noindex>", {}, "noindex", True),
        ("<META CONTENT='NOINDEX, NOFOLLOW' NAME=Robots>", {}, "noindex", False),
        ("<meta name=robots content=nofollow>", {}, "00000.html", False),
        ("<meta name=robots content=none>", {}, "noindex", False),
        ("<meta name=flywheel content=noindex>", {}, "noindex", True),
        ("<meta name=otherbot content=noindex>", {}, "00000.html", True),
        ("<meta name=robots content=noai>", {}, "noai", True),
        ("", {"X-Robots-Tag": "noindex"}, "noindex", True),
        ("", {"X-Robots-Tag": "otherbot: noindex, nofollow"}, "00000.html", True),
        ("", {"X-Robots-Tag": "flywheel: noindex, nofollow"}, "noindex", False),
        ("<!-- <meta name=robots content=noindex> -->", {}, "00000.html", True),
    ],
)
def test_robots_tags(
    server: Server, tmp_path: Path, head: str, headers: dict[str, str], fate: str, followed: bool
) -> None:
    server.routes |= {
        "/": Answer(page("/z", head=head), headers={"Content-Type": "text/html", **headers}),
        "/z": page(),
    }
    fetch(server, tmp_path)
    assert fates(server, tmp_path)["/"] == fate
    assert ("/z" in server.paths) == followed


# ---------------------------------------------------------------- sitemaps


def sitemap(*urls: str, kind: str = "url") -> str:
    inner = "".join(f"<{kind}><loc> {url} </loc><x:image><x:loc>/no</x:loc></x:image></{kind}>" for url in urls)
    return f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:x="x">{inner}</urlset>'


def test_sitemaps_and_their_index(server: Server, tmp_path: Path) -> None:
    url = server.url
    server.routes |= {
        "/robots.txt": Answer(f"Sitemap: {url}/index.xml\nSitemap: http://public.example/s.xml", headers=TEXT),
        "/index.xml": sitemap(f"{url}/one.xml.gz", f"{url}/index.xml", f"{url}/gone.xml", kind="sitemap"),
        "/one.xml.gz": Answer(gzip.compress(sitemap(f"{url}/b", f"{url}/a", "http://public.example/", "::").encode())),
        "/": page(),
        "/a": page(),
        "/b": page(),
    }
    fetch(server, tmp_path, sitemap=True, max_depth=0)
    assert list(fates(server, tmp_path)) == ["/", "/a", "/b"]


@pytest.mark.parametrize(
    "body",
    [
        b"<urlset><url><loc>/a",
        b"not xml",
        gzip.compress(bytes(60 << 20)),
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>',
        b"<a>" * 500_000,
        b"<?xml version='1.0' encoding='punycode'?><urlset/>",
    ],
)
def test_sitemaps_that_are_none(server: Server, tmp_path: Path, body: bytes) -> None:
    server.routes |= {"/": page(), "/sitemap.xml": Answer(body)}
    fetch(server, tmp_path, sitemap=True)
    assert fates(server, tmp_path) == {"/": "00000.html"}


# ---------------------------------------------------------------- what is kept


def test_redirects_are_named_and_followed_once(server: Server, tmp_path: Path) -> None:
    server.routes |= {
        "/": page("/old", "/older", "/loop", "/away", "/gopher"),
        "/old": Answer(status=301, headers={"Location": "/new"}),
        "/older": Answer(status=302, headers={"Location": "/old"}),
        "/new": page(),
        "/loop": Answer(status=302, headers={"Location": "/loop2"}),
        "/loop2": Answer(status=302, headers={"Location": "/loop"}),
        "/away": Answer(status=302, headers={"Location": "http://public.example/"}),
        "/gopher": Answer(status=302, headers={"Location": "gopher://127.0.0.1:6379/_INFO"}),
        **{f"/chain{i}": Answer(status=302, headers={"Location": f"/chain{i + 1}"}) for i in range(9)},
    }
    fetch(server, tmp_path, urls=(f"{server.url}/", f"{server.url}/chain0"))
    found = fates(server, tmp_path)
    chain = {name: found.pop(name) for name in sorted(found) if name.startswith("/chain")}
    assert found == {
        "/": "00000.html",
        "/away": "redirect_elsewhere",
        "/gopher": "address",
        "/loop": "redirect",
        "/loop2": "redirect",
        "/new": "00001.html",
        "/old": "redirect",
        "/older": "redirect",
    }
    assert chain == {**{f"/chain{i}": "redirect" for i in range(5)}, "/chain5": "too_many_redirects"}


def test_content_types(server: Server, tmp_path: Path) -> None:
    def typed(kind: str, body: bytes | str = "x") -> Route:
        return Answer(body, headers={"Content-Type": kind} if kind else {})

    server.routes |= {
        "/": page(*"abcdefgh"),
        "/a": typed("text/plain; charset=utf-8"),
        "/b": typed("text/markdown"),
        "/c": typed("application/pdf", b"%PDF-1.4"),
        "/d": typed("application/xhtml+xml"),
        "/e": typed("image/png"),
        "/f": typed("application/octet-stream", page("/never")),
        "/g": typed("", page()),
        "/h": typed("", b"\x89PNG"),
    }
    fetch(server, tmp_path)
    kinds = {path: fate.partition(".")[2] or fate for path, fate in fates(server, tmp_path).items()}
    assert list(kinds.values()) == [
        "html",
        "txt",
        "md",
        "pdf",
        "html",
        "content_type",
        "content_type",
        "html",
        "content_type",
    ]


def test_the_encoding_of_the_server_is_kept_in_the_file(server: Server, tmp_path: Path) -> None:
    body = page(text="Grüße").replace("<head>", "<head><meta charset=koi8-r>")
    server.routes |= {
        "/": Answer(page("/t"), headers={"Content-Type": "text/html; charset=utf-8"}),
        "/t": Answer(body.encode("latin-1"), headers={"Content-Type": 'text/html; charset="ISO-8859-1"'}),
    }
    fetch(server, tmp_path)
    assert (tmp_path / "00000.html").read_bytes() == page("/t").encode()
    assert (tmp_path / "00001.html").read_bytes() == b"\xef\xbb\xbf" + body.encode()


def test_licences(server: Server, tmp_path: Path) -> None:
    heads = {
        "/a": "<link rel=license href=https://creativecommons.org/licenses/by-sa/4.0/>",
        "/b": "<link rel='license' href=//creativecommons.org/publicdomain/zero/1.0/>",
        "/c": "<meta name=dcterms.license content='MIT'>",
        "/d": "",
    }
    server.routes |= {"/": page(*heads), **{path: page(head=head) for path, head in heads.items()}}
    fetch(server, tmp_path)
    found = [row.origin["license"] for row in outcomes(tmp_path, "ODC-By-1.0") if isinstance(row, Record)]
    assert found == ["ODC-By-1.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT", "ODC-By-1.0"]


def test_copies_name_their_original(server: Server, tmp_path: Path) -> None:
    def canonical(url: str) -> str:
        return page(head=f"<link rel=canonical href={url!r}>")

    server.routes |= {
        "/": page("/a?ref=1", "/x", "/y", "/lost"),
        "/a": canonical("/a"),
        "/a?ref=1": canonical("/a"),
        "/x": canonical("/y"),
        "/y": canonical("/x"),
        "/lost": canonical("/nowhere"),
    }
    fetch(server, tmp_path)
    found = fates(server, tmp_path)
    assert found.pop("/nowhere") == "http_404"
    assert [path for path, fate in found.items() if fate == "duplicate"] == ["/a?ref=1"]
    assert len(list(tmp_path.glob("*.html"))) == 5


def test_the_same_site_gives_the_same_files(server: Server, tmp_path: Path) -> None:
    server.routes |= {"/": page("/a", "/gone"), "/a": page()}
    for name in ("one", "two"):
        fetch(server, tmp_path / name)
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == ["00000.html", "00001.html", "fetched.json", "index.jsonl"]
    for name in names:
        if name != "fetched.json":
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_host_answers(tmp_path: Path) -> None:
    with serve() as server:
        pass
    with pytest.raises(SourceError, match="robots_unreachable"):
        fetch(server, tmp_path)


# ---------------------------------------------------------------- what becomes of it


def test_every_address_becomes_one_row(server: Server, tmp_path: Path) -> None:
    sentences = "".join(f"<p>Sentence {i} says something of its own about the matter at hand.</p>" for i in range(20))
    server.routes |= {
        "/robots.txt": Answer("User-agent: *\nDisallow: /no", headers=TEXT),
        "/": page("/no", "/gone", "/moved", "/empty", "/deep", "/article", "/large"),
        "/moved": Answer(status=301, headers={"Location": "/"}),
        "/empty": "<html><body></body></html>",
        "/deep": "<div>" * 50_000 + "x",
        "/article": f"<html><title>A &amp; B</title><body><nav>Home</nav><article>{sentences}</article></body></html>",
        "/large": Answer(b"x" * (5 << 20), headers={"Content-Type": "text/html"}),
    }
    fetch(server, tmp_path)
    found = outcomes(tmp_path)
    assert len(found) == len(index(tmp_path)) == 8
    kept = [row for row in found if isinstance(row, Record)]
    assert Counter(row.reason for row in found if isinstance(row, Dropped)) == {"robots": 1, "redirect": 1, "empty": 1}
    assert Counter(row.reason for row in found if isinstance(row, Quarantined)) == {
        "http_404": 1,
        "too_deep": 1,
        "too_long": 1,
    }
    row = next(row for row in kept if row.origin["url"].endswith("/article"))
    assert row.text is not None
    assert "Sentence 19" in row.text
    assert "Home" not in row.text
    assert row.origin["title"] == "A & B"
    assert row.origin["license"] == "CC0-1.0"
    assert row.origin["fetched"].endswith("+00:00")
