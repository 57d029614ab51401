"""Metrics of source code: does a completed function parse."""

from __future__ import annotations

import ast
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flywheel.metrics.metric import Metric, bootstrap_mean

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Completion:
    """A function's header, what was written after it, and whether it ended by itself before its budget did."""

    header: str
    text: str
    ended: bool


def parses(source: str) -> bool:
    """Whether Python's parser accepts the text. Nothing is run; what exhausts the parser counts as not parsing."""
    return _tree(source) is not None


def function_headers(source: str) -> Iterator[str]:
    """The header of every function and method that has more of a body than a docstring: from `def` to the end of the
    signature or docstring, with its indentation. Source that does not parse has none.

    The line break is left to the completion: a tokenizer that learned it together with the indentation that follows
    never saw it alone before a body.
    """
    tree = _tree(source)
    lines = list(io.StringIO(source, newline=None))
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            header = "".join(lines[node.lineno - 1 : _first_line(body) - 1]).rstrip()
            if header.strip() and _function_parses(header + "\n" + " " * body[0].col_offset + "pass\n"):
                yield header


def parse_rate(completions: Sequence[Completion], seed: int) -> Metric:
    """Share of completions that have a body and parse together with their header, in [0, 1].

    A budget that ends inside a statement costs real code too: with 96 tokens of a 4,096-token BPE the standard
    library's own functions reach 0.86, with 192 tokens 0.93.
    """
    finished = [finish(c) for c in completions]
    accepted = [source is not None and _function_parses(source) for source in finished]
    return bootstrap_mean("parse_rate", "higher", np.array(accepted, dtype=np.float64), seed)


def finish(completion: Completion) -> str | None:
    """Header and the written body: up to the first line below the header's that is no deeper than it or, where the
    budget ran out first, up to the last whole line. None where no line of a body was written."""
    indentation = _indentation(completion.header)
    lines = completion.text.splitlines(keepends=True)
    below = (i for i, line in enumerate(lines) if i and line.strip() and _indentation(line) <= indentation)
    end = next(below, None)
    if end is None:
        whole = completion.ended or completion.text.endswith("\n")
        end = len(lines) if whole else len(lines) - 1
    body = "".join(lines[:end])
    return completion.header + body if body.strip() else None


def _tree(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _function_parses(source: str) -> bool:
    """Whether a function parses at the indentation that it has."""
    return parses(f"if True:\n{source}" if source[:1].isspace() else source)


def _first_line(body: Sequence[ast.stmt]) -> int:
    """Where a body starts, its decorators included; 1 for an empty one."""
    if not body:
        return 1
    decorators: list[ast.expr] = getattr(body[0], "decorator_list", [])
    return min([body[0].lineno, *(decorator.lineno for decorator in decorators)])


def _indentation(line: str) -> int:
    expanded = line.expandtabs()
    return len(expanded) - len(expanded.lstrip(" "))
