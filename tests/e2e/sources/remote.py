"""Servers with good rows and with known defects: PostgreSQL, a REST API, a web site and an S3 bucket."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.e2e.sources.prose import english
from tests.flywheel.sources.web_server import Answer, Asked, Route

TOKEN = "t0p-secret-token"
BUCKET = "mixed-sources"


# ---------------------------------------------------------------- PostgreSQL


def questions(url: str) -> None:
    """The table `faq` of questions and answers."""
    from sqlalchemy import create_engine, text

    asked, answered = english("questions", 7, sentences=1), english("answers", 7)
    pairs: list[tuple[str, str | None]] = [*zip(asked, answered, strict=True), (asked[2], answered[2])]
    pairs += [(english("unanswered", 1)[0], None), ("Whom may I ask about it?", f"{answered[0]} Ask jo@example.com.")]
    insert = text("insert into faq (question, answer, shelf) values (:question, :answer, :shelf)")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table faq (id serial primary key, question text, answer text, shelf text)"))
        connection.execute(insert, [{"question": q, "answer": a, "shelf": "a"} for q, a in pairs])
        connection.execute(insert, {"question": "On another shelf?", "answer": "Yes.", "shelf": "b"})
    engine.dispose()


# ---------------------------------------------------------------- REST


class Tickets:
    """A paginated API that wants a token and is busy at the first request of its second page."""

    size = 5

    def __init__(self) -> None:
        good = english("rest", 9)
        self.rows: list[Any] = [{"id": number, "body": text} for number, text in enumerate(good)]
        self.rows += [{"id": 20}, {"id": 21, "body": None}, "no object", {"id": 22, "body": good[4]}]
        self.rows.append({"id": 23, "body": "half a pair: \ud83d"})
        self.refused = 0

    def __call__(self, asked: Asked) -> Answer:
        if asked.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Answer('{"error": "no token"}', 401)
        page = int(parse_qs(urlsplit(asked.path).query)["page"][0])
        if page == 2 and not self.refused:
            self.refused += 1
            return Answer("slow down", 429, {"Retry-After": "1"})
        rows = self.rows[(page - 1) * self.size : page * self.size]
        return Answer(
            json.dumps({"total": len(self.rows), "items": rows}), headers={"Content-Type": "application/json"}
        )


# ---------------------------------------------------------------- web


def site(url: str) -> dict[str, Route]:
    """Pages by path: five with a text that may be taken."""
    texts = english("web", 7, sentences=4)
    links = ("/guide/one", "/guide/two", "/private/list", "/missing", "/hidden", "/old", "/logo", "/drafts/next")
    listed = "".join(f"<url><loc>{url}/guide/{name}</loc></url>" for name in ("three", "four"))
    elsewhere = '<a href="https://example.org/elsewhere">another host</a>'
    return {
        "/robots.txt": Answer("User-agent: *\nDisallow: /private/\n", headers={"Content-Type": "text/plain"}),
        "/sitemap.xml": Answer(f"<urlset>{listed}</urlset>", headers={"Content-Type": "application/xml"}),
        "/": page(texts[0], "".join(f'<a href="{link}">{link}</a> ' for link in links) + elsewhere),
        "/guide/one": page(texts[1], '<a href="/">home</a>'),
        "/guide/two": page(texts[2], '<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC BY</a>'),
        "/guide/three": page(texts[3]),
        "/guide/four": page(texts[4]),
        "/private/list": page("Nobody may fetch this page."),
        "/hidden": page(texts[5], head='<meta name="robots" content="noindex">'),
        "/old": Answer("", 301, {"Location": "/guide/one"}),
        "/logo": Answer(b"\x89PNG\r\n\x1a\n", headers={"Content-Type": "image/png"}),
        "/drafts/next": page(texts[6]),
    }


def page(text: str, more: str = "", head: str = "") -> str:
    return (
        f"<!doctype html><html><head><title>A page</title>{head}</head>"
        f"<body><main><article><p>{text}</p></article></main><nav>{more}</nav></body></html>"
    )


# ---------------------------------------------------------------- S3


def bucket(client: Any) -> None:
    """Objects below `docs/`, and pictures with captions below `pictures/`."""
    good = english("s3", 9)
    lines = [*(json.dumps({"text": text}) for text in good[2:7]), '{"text": "torn']
    objects = {
        "docs/a.txt": good[0].encode(),
        "docs/b.md": f"# B\n\n{good[1]}\n".encode(),
        "docs/rows.jsonl.gz": gzip.compress("\n".join(lines).encode(), mtime=0),
        "docs/bundle.zip": _zip({"x.txt": good[7], "sub/y.txt": good[8], "../evil.txt": "out", "photo.raw": "?"}),
        "docs/torn.zip": b"PK\x03\x04 this is no archive",
        "docs/old/c.txt": b"of last year",
        "docs/program.exe": b"MZ",
        "pictures/metadata.csv": _captions(english("captions", 4)).encode(),
        "pictures/one.png": png(10),
        "pictures/two.png": png(200),
        "pictures/torn.png": png(100)[:40],
    }
    client.create_bucket(Bucket=BUCKET)
    for key, body in objects.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=body)


def _zip(members: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return out.getvalue()


def _captions(texts: list[str]) -> str:
    names = ("one.png", "two.png", "torn.png", "missing.png")
    return "file_name,text\n" + "".join(f'{name},"{text}"\n' for name, text in zip(names, texts, strict=True))


def png(grey: int) -> bytes:
    """A picture of 32x32 pixels of one grey."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (32, 32), grey).save(out, "PNG")
    return out.getvalue()
