from pathlib import Path

import pytest

from flywheel.errors import SourceError
from flywheel.recipe_sources import WebSource
from flywheel.sources import pages
from flywheel.sources.parsed import Bad, Found, Options


def parsed(tmp_path: Path, page: str | bytes, encoding: str = "auto") -> Found | Bad:
    (tmp_path / "page.html").write_bytes(page if isinstance(page, bytes) else page.encode())
    (found,) = pages.parse(tmp_path / "page.html", Options(encoding))
    return found


def test_main_text_without_the_furniture(tmp_path: Path) -> None:
    sentences = "".join(f"<p>Sentence {i} says something of its own about the matter at hand.</p>" for i in range(20))
    found = parsed(
        tmp_path,
        f"<html><head><title>The matter</title><link rel=canonical href=http://public.example/m>"
        f"<link rel=license href=https://creativecommons.org/licenses/by/4.0/></head><body><nav>Home | About</nav>"
        f"<article>{sentences}</article><footer>Imprint</footer></body></html>",
    )
    assert isinstance(found, Found)
    text = found.cells["text"]
    assert all(f"Sentence {i} " in text for i in range(20))
    assert not {"Home", "Imprint"} & set(text.split())
    assert found.origin == {"title": "The matter", "url": "http://public.example/m", "license": "CC-BY-4.0"}


def test_a_short_page_keeps_its_text(tmp_path: Path) -> None:
    found = parsed(tmp_path, "<body><nav>Home</nav><script>no()</script><p>Only  a few</p><p>words</p></body>")
    assert isinstance(found, Found)
    assert found.cells == {"text": "Only a few\nwords"}


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<div>" * 50_000 + "x", "too_deep"),
        (b"<p>x" + b" " * (4 << 20), "too_long"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "wrong_format"),
    ],
)
def test_pages_that_are_not_parsed(tmp_path: Path, page: str | bytes, reason: str) -> None:
    found = parsed(tmp_path, page)
    assert isinstance(found, Bad)
    assert found.reason == reason


@pytest.mark.parametrize("page", ["", "<", "<!--", "</html>", "plain", b"\xff\xfe\x00", "<body>" + "\x01" * 99])
def test_pages_that_are_hardly_any(tmp_path: Path, page: str | bytes) -> None:
    assert isinstance(parsed(tmp_path, page), Found)


def test_encodings(tmp_path: Path) -> None:
    body = "<body><p>Привет, мир</p></body>"
    for raw, encoding in ((body.encode("koi8-r"), "koi8-r"), (body.encode(), "auto"), (body.encode("utf-16"), "auto")):
        found = parsed(tmp_path, raw, encoding)
        assert isinstance(found, Found)
        assert found.cells["text"] == "Привет, мир"


def test_a_source_that_was_not_fetched() -> None:
    with pytest.raises(SourceError, match="no snapshot"):
        pages.reader(WebSource(type="web", urls=("http://public.example/",)), "web", None)
