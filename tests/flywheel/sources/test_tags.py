import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.sources.tags import MAX_LINKS, asked, decode, look, spdx


def test_links_title_and_canonical() -> None:
    found = look(
        """<!DOCTYPE html><html><head><title> A &lt;b&gt;
        title </title><base href="/base/"><link rel="Canonical x" href=/self><link rel=stylesheet href=/css>
        <script>"<a href='/script'>"</script><!-- <a href=/comment> --></head><body>
        <A CLASS=x HREF = "/one?a=1&amp;b=2" href=/second>1</A><a href='/two >'>2</a><area href=/three><a>no</a>
        <textarea><a href=/text></textarea></body>"""
    )
    assert (found.title, found.base, found.canonical) == ("A <b> title", "/base/", "/self")
    assert found.links == ["/one?a=1&b=2", "/two >", "/three"]


def test_depth() -> None:
    assert look("<html><body><div><p>a<p>b<br><img><ul><li>x<li>y</ul></div><div></div></body></html>").depth == 4
    assert look("</div>" * 9 + "<div>" * 100_000).depth == 100_000


@pytest.mark.parametrize(
    "page",
    [
        "<a " * 300_000,
        "<a '" * 300_001,
        '<a href="' * 300_001,
        "<!--" * 300_000,
        "<script>" * 300_000,
        "<title></" * 300_000,
        "<" * 1_000_000,
        "<a " + " ".join(f"a{i}=1" for i in range(100_000)) + ">",
        ("<a href='" + "&" * 16_000 + "'>") * 100,
    ],
)
def test_no_page_makes_it_slow(page: str) -> None:
    assert len(look(page).links) <= 100  # each of these takes a parser that backtracks minutes


def test_links_are_counted_to_a_limit() -> None:
    assert len(look("<a href=x>" * (MAX_LINKS + 9)).links) == MAX_LINKS


@given(st.text())
def test_any_text_is_looked_at(page: str) -> None:
    look(page)


@given(st.text(alphabet="<>/!-'\"= ahrefscitlmn&;"))
def test_any_markup_is_looked_at(page: str) -> None:
    look(page)


@pytest.mark.parametrize(
    ("values", "asks"),
    [
        ("noindex", {"noindex"}),
        ("NoIndex , NOFOLLOW", {"noindex", "nofollow"}),
        ("none", {"none", "noindex", "nofollow"}),
        ("flywheel: noindex, nofollow", {"noindex", "nofollow"}),
        ("other: noindex, flywheel: nofollow", {"nofollow"}),
        ("other: noindex", set()),
        ("max-snippet: 5, noindex", {"max-snippet: 5", "noindex"}),
    ],
)
def test_asked(values: str, asks: set[str]) -> None:
    assert asked(values, "flywheel") == asks


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("https://creativecommons.org/licenses/by-nc-sa/3.0/de/", "CC-BY-NC-SA-3.0"),
        ("http://www.creativecommons.org/publicdomain/zero/1.0/deed.en", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("https://public.example/licence", "https://public.example/licence"),
        (" All  rights\nreserved ", "All rights reserved"),
    ],
)
def test_spdx(text: str, identifier: str) -> None:
    assert spdx(text) == identifier


@pytest.mark.parametrize(
    ("raw", "named", "text"),
    [
        ("é".encode(), "iso-8859-1", "é"),
        ("é".encode("latin-1"), "", "é"),
        ("é".encode("latin-1"), "utf-8", "é"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет"),
        ('<meta charset="koi8-r">Привет'.encode("koi8-r"), "", '<meta charset="koi8-r">Привет'),
        ("日本".encode("iso2022_jp"), "iso-2022-jp", "日本"),
        ("\ufeffé".encode("utf-16-le"), "utf-8", "é"),
        ("\ufeffé".encode(), "latin-1", "é"),
        (b"\x80abc", "punycode", "€abc"),
        (b"\\u0041\xff", "unicode_escape", "\\u0041ÿ"),
        (b"\x81", "no such encoding", "\ufffd"),
    ],
)
def test_decode(raw: bytes, named: str, text: str) -> None:
    assert decode(raw, named) == text
