"""Pairs for fine-tuning from source code: a function without its docstring, and the docstring's first paragraph."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field

from flywheel.record import Outcome, Outcomes, Record, drop, provenance_id

Function = ast.FunctionDef | ast.AsyncFunctionDef


def docstring_pairs(
    rows: Iterable[Record],
    max_chars: Annotated[int, Field(ge=1)] = 1200,
    min_words: Annotated[int, Field(ge=1)] = 4,
) -> Outcomes:
    """Replace each code row by one (function, docstring) pair for each function it documents.

    A row that gives none is dropped: `no_pairs`, or `syntax_error` where it is not Python.
    """
    for row in rows:
        try:
            found: list[Outcome] = list(pairs(row, max_chars, min_words))
        except SyntaxError:
            yield drop(row, "syntax_error")
            continue
        yield from found or [drop(row, "no_pairs")]


def pairs(row: Record, max_chars: int, min_words: int) -> Iterator[Record]:
    """One row (prompt, completion) for each function or method of a code row that says what it does, in source order.

    The prompt is the function's dedented source with the docstring cut out; a function that is nothing but a docstring
    gives none. The completion is the first paragraph on one line. `max_chars` bounds both together.
    Raises SyntaxError where the text is not Python.
    """
    text = (row.text or "").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    for qualified, node in _functions(_parsed(text), ""):
        completion = summary(ast.get_docstring(node, clean=False) or "")
        if len(completion.split()) < min_words:
            continue
        prompt = _without_docstring(node, lines)
        if prompt is None or len(prompt) + len(completion) > max_chars:
            continue
        position = f"{qualified}:{node.lineno}"
        yield Record(
            id=provenance_id(row.id, position, f"{prompt}\0{completion}".encode()),
            prompt=prompt,
            completion=completion,
            origin={
                **row.origin,
                "size": len(prompt.encode() + completion.encode()),
                "position": position,
                "parent": row.id,
            },
        )


def summary(docstring: str) -> str:
    """The first paragraph of a docstring on one line, up to an example."""
    first = re.split(r"\n\s*\n|\n\s*>>>|^>>>", inspect.cleandoc(docstring), maxsplit=1)[0]
    return " ".join(first.split())


def _parsed(text: str) -> ast.Module:
    """The syntax tree; whatever the parser cannot take is a SyntaxError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    """Qualified name and node of every function below a node, outer ones first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{prefix}{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from _functions(child, f"{name}.")
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _functions(child, prefix)


def _without_docstring(node: Function, lines: list[str]) -> str | None:
    """The dedented source of a function without its docstring; None where that leaves no function.

    Only the function's own indentation is taken away, so that a text literal that is less indented stays as it is.
    """
    docstring, end = node.body[0], node.end_lineno or node.lineno
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    if len(node.body) == 1 or not _stands_alone(docstring, lines):
        return None
    kept = [*lines[start - 1 : docstring.lineno - 1], *lines[docstring.end_lineno : end]]
    indent = lines[node.lineno - 1][: node.col_offset]
    source = "\n".join(line.removeprefix(indent) for line in kept) + "\n"
    try:
        parsed = _parsed(source)
    except SyntaxError:
        return None
    return source if len(parsed.body) == 1 and isinstance(parsed.body[0], Function) else None


def _stands_alone(statement: ast.stmt, lines: list[str]) -> bool:
    """Whether nothing but a comment shares the lines of a statement."""
    first, last = lines[statement.lineno - 1].encode(), lines[(statement.end_lineno or 0) - 1].encode()
    rest = last[statement.end_col_offset or 0 :].strip()
    return not first[: statement.col_offset].strip() and (not rest or rest.startswith(b"#"))
