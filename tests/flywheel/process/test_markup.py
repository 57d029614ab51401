from collections.abc import Callable

import pytest

from flywheel.process.markup import remove_html, remove_markdown, without_html, without_markdown
from flywheel.record import Outcomes, Record


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("<p>One <b>two</b></p><p>Three<br/>four</p>", "One two\n\nThree\nfour"),
        ("<ul><li>a</li><li>b</li></ul>", "a\nb"),
        ("<table><tr><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>", "1\t2\n3"),
        ("<!DOCTYPE html><!-- c > d --><style>p {}</style><h1 title='a>b' id=x>T</h1>", "T"),
        ("a<script>if (a<b) {}</script>b<SCRIPT>never closed", "ab"),
        ("Fish &amp; chips &#8364;5&nbsp;off &lt;b&gt; AT&T ?a=1&copy=2", "Fish & chips €5 off <b> AT&T ?a=1&copy=2"),
        ("1 < 2, a<b and List<String> <3 <you@example.org>", "1 < 2, a<b and List<String> <3 <you@example.org>"),
        ("  no   markup \n\n\n here ", "  no   markup \n\n\n here "),
    ],
)
def test_html_is_removed(markup: str, plain: str) -> None:
    assert without_html(markup) == plain


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("# Head *x*\n\npara **b** _c_ ~~d~~ `e`", "Head x\n\npara b c d e"),
        ("[text](http://a.b 't') ![alt](i.png) <http://c.d>\n", "text alt http://c.d\n"),
        ("- a\n- b\n  - c\n\n1. one\n2. two", "a\nb\nc\n\n1. one\n2. two"),
        ("> quoted\n> more\n\n```py\nx = 1\n\ny = 2\n```\n\nend", "quoted\nmore\n\nx = 1\n\ny = 2\n\nend"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\nend", "a\tb\n1\t2\n\nend"),
        ("2 * 3 * 4 snake_case_name \\*", "2 * 3 * 4 snake_case_name *"),
        ("plain\n\n\n    text ", "plain\n\n\n    text "),
    ],
)
def test_markdown_is_removed(markup: str, plain: str) -> None:
    assert without_markdown(markup) == plain


@pytest.mark.parametrize(("operation", "text"), [(remove_html, "<!-- -->"), (remove_markdown, "[a]: b\n")])
def test_what_was_only_markup_is_dropped(operation: Callable[[list[Record]], Outcomes], text: str) -> None:
    assert [getattr(row, "reason", None) for row in operation([Record("x", text=text)])] == ["empty"]


@pytest.mark.parametrize("piece", ["<div>", "<a ", '<a "', "<script>", "<!--", "<p /", "<svg", "&a", "\n", "<p a=1 "])
def test_hostile_html_takes_linear_time(piece: str) -> None:
    """A quadratic rule would take hours."""
    assert len(without_html(piece * 300_000)) <= 300_000 * len(piece)


@pytest.mark.parametrize("piece", ["[", "> ", "- ", "*a_ ", "![[]()", "|a\n", "`a", "# ", "<a "])
def test_hostile_markdown_ends(piece: str) -> None:
    assert len(without_markdown(piece * 5_000)) <= 5_000 * len(piece)
