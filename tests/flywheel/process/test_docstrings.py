import textwrap

from hypothesis import given
from hypothesis import strategies as st

from flywheel.process.docstrings import docstring_pairs, pairs, summary
from flywheel.record import Dropped, Record

SOURCE = '''
import functools

@functools.cache
def area(width, height):
    """Return the area of
    a rectangle.

    Both in metres.
    """
    return width * height

class Queue:
    """A queue of many things to do."""

    async def put(self, item):
        r"""Put one item at the end \\o/ >>> not an example."""  # why not
        text = """
at the margin
"""
        self.items.append(item + text)

    def abstract(self):
        """Do what the subclass says here."""

    def short(self):
        """Too short."""
        return 1

    def one_line(self): """A docstring beside its function."""; return 2

def outer():
    if True:
        def inner():
            """Say something nice to people.
            >>> inner()
            """
            return "hello"
    return inner
'''


def row(text: str) -> Record:
    return Record(id="parent", text=text, origin={"path": "a.py", "group": "a", "license": "MIT", "size": len(text)})


def test_a_pair_is_a_function_without_its_docstring_and_the_first_paragraph() -> None:
    found = {r.origin["position"]: r for r in pairs(row(SOURCE), max_chars=1200, min_words=4)}
    assert list(found) == ["area:5", "Queue.put:16", "outer.inner:34"]
    area = found["area:5"]
    assert area.prompt == "@functools.cache\ndef area(width, height):\n    return width * height\n"
    assert area.completion == "Return the area of a rectangle."
    put = found["Queue.put:16"]
    assert put.prompt is not None
    assert put.prompt.startswith("async def put(self, item):\n    text = ")
    assert '"""\nat the margin\n"""' in put.prompt
    assert found["outer.inner:34"].completion == "Say something nice to people."


def test_a_pair_inherits_its_origin_and_has_an_id_of_its_own() -> None:
    first, *others = pairs(row(SOURCE), max_chars=1200, min_words=4)
    here = {"position": "", "size": 0, "parent": ""}
    assert {**first.origin, **here} == {**row("").origin, **here}
    assert first.text is None
    assert first.id not in {"parent", *(r.id for r in others)}
    assert first == next(pairs(row(SOURCE), max_chars=1200, min_words=4))


def test_line_ends_of_the_file_play_no_part() -> None:
    expected = [(r.prompt, r.completion) for r in pairs(row(SOURCE), 1200, 4)]
    for newline in ("\r\n", "\r"):
        assert [(r.prompt, r.completion) for r in pairs(row(SOURCE.replace("\n", newline)), 1200, 4)] == expected


def test_limits() -> None:
    assert len(list(pairs(row(SOURCE), 1200, 2))) == 4
    assert [r.origin["position"] for r in pairs(row(SOURCE), 105, 4)] == ["area:5", "outer.inner:34"]


def test_the_summary_stops_at_a_blank_line_or_an_example() -> None:
    assert summary("\n    One\n    two.\n\n    Three.") == "One two."
    assert summary("One.\n>>> f()") == "One."
    assert summary(">>> f()\n1") == ""


def test_rows_that_give_nothing_are_dropped_with_a_reason() -> None:
    given_rows = [row("x = 1\n"), row("def f(:\n"), row("x = '\0'\n"), row("(" * 10_000), Record(id="i", image=b"png")]
    assert [r.reason for r in docstring_pairs(given_rows) if isinstance(r, Dropped)] == [
        "no_pairs",
        "syntax_error",
        "syntax_error",
        "syntax_error",
        "no_pairs",
    ]


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters='\\"\r\0'), max_size=60),
    st.sampled_from(["", "class A:\n", "class A:\n    class B:\n"]),
)
def test_every_prompt_is_one_function_that_parses(docstring: str, frame: str) -> None:
    function = f'def f(a,\n      b=1):\n    """{docstring}"""\n    # why\n    return a\n'
    text = frame + textwrap.indent(function, "    " * frame.count("class"), lambda line: True)
    for pair in pairs(row(text), 1200, 1):
        assert pair.prompt == "def f(a,\n      b=1):\n    # why\n    return a\n"
