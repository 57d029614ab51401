from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.metrics.code import Completion, finish, function_headers, parse_rate, parses

SOURCE = textwrap.dedent('''\
    class Stack:
        @property
        def top(self):
            """The last item."""
            # a comment belongs to the header
            return self.items[-1]

        def push(
            self, item,
        ) -> None:
            @cached
            def inner():
                return item
            self.items.append(inner())

    def one_line(): return 1

    def only_docstring():
        """Nothing else."""
''')


@pytest.mark.parametrize(
    ("source", "accepted"),
    [("x = 1", True), ("", True), ("def f(:", False), ("x = 1\0", False), ("(" * 5000 + ")" * 5000, False)],
)
def test_parses(source: str, accepted: bool) -> None:
    assert parses(source) is accepted


@given(st.text())
def test_parsing_never_raises(source: str) -> None:
    assert parses(source) in (True, False)
    assert list(function_headers(source)) == []


def test_headers_end_where_the_body_starts() -> None:
    headers = set(function_headers(SOURCE))
    assert headers == {
        '    def top(self):\n        """The last item."""\n        # a comment belongs to the header',
        "    def push(\n        self, item,\n    ) -> None:",
        "        def inner():",
    }


def test_headers_of_the_standard_library_complete_to_code() -> None:
    headers = list(function_headers(Path(textwrap.__file__).read_text()))
    assert len(headers) > 10
    for header in headers:
        body = "\n" + " " * (len(header) - len(header.lstrip()) + 4) + "pass\n"
        assert parses(("if True:\n" if header[0].isspace() else "") + header + body)


def test_a_function_ends_at_the_next_line_that_is_not_deeper() -> None:
    completion = Completion("    def f(x):\n", "        return x\n\n    def g(", ended=False)
    assert finish(completion) == "    def f(x):\n        return x\n\n"


def test_a_line_that_the_budget_cut_is_left_out() -> None:
    text = "    y = x + 1\n    return y * (3 +"
    assert finish(Completion("def f(x):\n", text, ended=False)) == "def f(x):\n    y = x + 1\n"
    assert finish(Completion("def f(x):\n", "    return x", ended=True)) == "def f(x):\n    return x"


def test_a_docstring_alone_is_no_completion() -> None:
    header = 'def f():\n    """Do."""\n'
    assert finish(Completion(header, "\n\ndef g():\n", ended=False)) is None
    assert finish(Completion(header, "    return", ended=False)) is None


def test_parse_rate_is_the_share_that_parses() -> None:
    header = "    def f(self):\n"
    texts = ["        return 1\n", "        return (\n", "\n", "        x = [\n        ]\n    y"]
    metric = parse_rate([Completion(header, text, ended=False) for text in texts], seed=0)
    assert metric.value == 0.5
    assert metric.low <= 0.5 <= metric.high
