import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.sources.robots import MAX_BYTES, NOTHING, parse


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        # the examples of RFC 9309, section 2.2.2 and 5.2
        ("Allow: /example/page/\nDisallow: /example/page/disallowed.gif", "/example/page/disallowed.gif", False),
        ("Allow: /example/page/\nDisallow: /example/page/disallowed.gif", "/example/page/other.gif", True),
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow: /foo/bar?baz=http://foo.bar", "/foo/bar?baz=http://foo.bar", False),
        ("Disallow: /foo/bar/\u30c4", "/foo/bar/%E3%83%84", False),
        ("Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        ("Disallow: /*.gif$", "/a/b.gif", False),
        ("Disallow: /*.gif$", "/a/b.gif?x", True),
        ("Disallow: /*/b/*/d", "/a/b/c/d/e", False),
        ("Disallow: /*b*$", "/ab", False),
        ("Disallow: /a*a$", "/a", True),
        ("Disallow: /$", "/", False),
        ("Disallow: /$", "/a", True),
        ("Disallow:", "/a", True),
        ("Disallow: / # all of it", "/a", False),
        ("DISALLOW : /a", "/a", False),
        ("Disallow /a", "/a", True),
    ],
)
def test_rules(rules: str, path: str, allowed: bool) -> None:
    assert parse(f"User-agent: *\n{rules}".encode(), "flywheel").allow(path) == allowed


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        ("User-agent: flywheel\nDisallow:\n\nUser-agent: *\nDisallow: /", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: FlyWheel/2.0\nAllow: /", True),
        ("User-agent: flywheelbot\nDisallow: /", True),
        ("User-agent: other\nUser-agent: flywheel\nDisallow: /", False),
        ("User-agent: flywheel\nDisallow: /b\nUser-agent: flywheel\nDisallow: /a", False),
        ("Disallow: /a", True),
        ("\ufeffUser-agent: *\r\nDisallow: /a", False),
        ("User-agent: *\rDisallow: /a", False),
    ],
)
def test_groups(body: str, allowed: bool) -> None:
    assert parse(body.encode(), "flywheel").allow("/a") == allowed


def test_delay_and_sitemaps() -> None:
    found = parse(b"Sitemap: http://a/1\nUser-agent: *\nCrawl-delay: 2.5\nsitemap:http://a/2\n", "flywheel")
    assert (found.delay, found.sitemaps) == (2.5, ("http://a/1", "http://a/2"))
    assert parse(b"User-agent: *\nCrawl-delay: -1\nCrawl-delay: soon", "flywheel").delay == 0


def test_nothing() -> None:
    assert not NOTHING.allow("/")


def test_patterns_cannot_make_it_slow() -> None:
    rules = parse(b"User-agent: *\nDisallow: /" + b"*a" * 200_000 + b"b$", "flywheel")
    assert rules.allow("/" + "a" * 100_000)


@given(st.binary(max_size=300), st.text(max_size=50))
def test_any_bytes_are_read(body: bytes, path: str) -> None:
    parse(b"User-agent: *\nDisallow: " + body, "flywheel").allow("/" + path)


def test_the_rest_of_a_very_long_file_is_not_read() -> None:
    assert parse(b"#" * MAX_BYTES + b"\nUser-agent: *\nDisallow: /", "flywheel").allow("/")
