"""Programming problems with their tests: HumanEval and MBPP files as they are published, and rows of one's own."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flywheel.errors import SourceError
from flywheel.sandbox import Program

Row = Mapping[str, Any]

HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a completion ends (Chen et al. 2021)."""
MBPP_STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif")
"""Where a whole program ends after a docstring (Fried et al. 2022, the InCoder paper)."""


@dataclass(frozen=True)
class Problem:
    """A prompt, and what a completion of it must pass."""

    id: str
    prompt: str
    """What a model continues."""
    stop: tuple[str, ...]
    """Texts before the first of which a completion is cut off."""
    head: str
    """What stands before the completion in the program: the prompt where it is code."""
    checks: str
    prelude: str = ""
    entry: tuple[str, ...] = ()
    shared: bool = False
    solution: str = ""
    """The completion that the file itself gives; empty where it has none."""

    def cut(self, completion: str) -> str:
        """The completion up to the first stop sequence."""
        places = [completion.find(stop) for stop in self.stop]
        return completion[: min([place for place in places if place >= 0], default=len(completion))]

    def program(self, completion: str) -> Program:
        """The completion, cut off where it ends, with its checks."""
        return Program(self.head + self.cut(completion), self.checks, self.prelude, self.entry, self.shared)

    def solved(self) -> Program:
        """The file's own solution with its checks, uncut."""
        return Program(self.head + self.solution, self.checks, self.prelude, self.entry, self.shared)


class Rows(NamedTuple):
    """The problems of a file and the name of its format: `humaneval`, `mbpp` or `tests`."""

    format: str
    problems: list[Problem]


def read(path: Path) -> Rows:
    """The problems of a .jsonl, .jsonl.gz or .json file, whose keys tell its format.

    HumanEval: `task_id, prompt, entry_point, canonical_solution, test`. MBPP: `task_id, text` (or `prompt`), `code,
    test_list`, and where the file has them `test_setup_code` and `test_imports`. Rows of one's own: `prompt`, the
    beginning of a program, and `tests`, statements that come after it (text, or a list of texts).

    Raises SourceError that names the line and the key for a row that is none of these.
    """
    found = [(place, row, _format(place, row)) for place, row in _rows(path)]
    if not found:
        raise SourceError(str(path), found="no problems", expected="a row for each", remedy="check the file")
    problems = [_READERS[kind](_Fields(place, row)) for place, row, kind in found]
    kinds = sorted({kind for _, _, kind in found})
    ids = [problem.id for problem in problems]
    if twice := next((i for i in ids if ids.count(i) > 1), None):
        raise SourceError(str(path), found=f"task_id {twice!r} twice", expected="one row for each problem",
                          remedy="remove one of them")  # fmt: skip
    return Rows("+".join(kinds), problems)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows with their places."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, ValueError) as error:
        raise SourceError(str(path), found=str(error), expected="a .jsonl, .jsonl.gz or .json file of problems",
                          remedy="correct the path") from error  # fmt: skip
    if path.suffix == ".json":
        rows = _parsed(str(path), text)
        yield from ((f"{path}[{i}]", row) for i, row in enumerate(rows if isinstance(rows, list) else [rows]))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", _parsed(f"{path}:{number}", line)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(place, found=str(error), expected="JSON", remedy="correct or remove it") from error


_KEYS = {
    "humaneval": ("task_id", "prompt", "entry_point", "test"),
    "mbpp": ("task_id", "code", "test_list"),
    "tests": ("prompt", "tests"),
}


def _format(place: str, row: Any) -> str:
    keys = set(row) if isinstance(row, dict) else set()
    for kind, needed in _KEYS.items():
        if keys.issuperset(needed):
            return kind
    nearest = max(_KEYS, key=lambda kind: len(keys.intersection(_KEYS[kind])) / len(_KEYS[kind]))
    missing = [key for key in _KEYS[nearest] if key not in keys]
    raise SourceError(
        place,
        found=f"no {' and no '.join(missing)} among {', '.join(sorted(keys)) or 'its keys'}",
        expected="; ".join(f"{kind}: {', '.join(needed)}" for kind, needed in _KEYS.items()),
        remedy=f"add {missing[0]}",
    )


class _Fields:
    """A row, asked key by key."""

    def __init__(self, place: str, row: Row) -> None:
        self._place, self._row = place, row

    def text(self, key: str, default: str | None = None) -> str:
        value = self._row.get(key, default)
        return value if isinstance(value, str) else self._wrong(key, value, "text")

    def texts(self, key: str, default: Sequence[str] | None = None) -> list[str]:
        """A list of texts; a single text is a list of one."""
        value = self._row.get(key, default)
        value = [value] if isinstance(value, str) else value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        return [self._wrong(key, value, "a list of texts")]

    def first(self, *keys: str) -> str:
        """The first key that the row has, or the last of all."""
        return next((key for key in keys if key in self._row), keys[-1])

    def name(self) -> str:
        value = self._row.get("task_id", self._place.rpartition(":")[2])
        return str(value) if isinstance(value, str | int) else self._wrong("task_id", value, "text or a number")

    def _wrong(self, key: str, value: Any, expected: str) -> str:
        raise SourceError(
            f"{self._place}: {key}", found=repr(value)[:80], expected=expected, remedy=f"correct {key}"
        )  # fmt: skip


def _humaneval(row: _Fields) -> Problem:
    prompt, entry = row.text("prompt"), row.text("entry_point")
    checks = f"{row.text('test')}\ncheck({entry})\n"
    solution = row.text("canonical_solution", "")
    return Problem(row.name(), prompt, HUMANEVAL_STOP, prompt, checks, _helpers(prompt), (entry,), solution=solution)


def _helpers(prompt: str) -> str:
    """A prompt that is a whole program holds what the tests may lean on besides the function that is asked for."""
    try:
        ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return prompt


def _mbpp(row: _Fields) -> Problem:
    """Prompted by a docstring that holds the task and its tests, as Fried et al. 2022 do, with all of them."""
    tests, setup, code = row.texts("test_list"), row.text("test_setup_code", ""), row.text("code")
    text = row.text(row.first("text", "prompt"))
    prompt = '"""\n' + "\n".join([text, *tests]) + '\n"""\n'
    checks = "\n".join([*row.texts("test_imports", []), setup, *tests]) + "\n"
    functions, classes = _defined(code, checks)
    shared = bool(setup.strip() or classes)
    return Problem(row.name(), prompt, MBPP_STOP, "", checks, "", functions, shared, code)


def _defined(code: str, checks: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the functions and of the classes that a solution defines and its checks use."""
    try:
        used = {node.id for node in ast.walk(ast.parse(checks)) if isinstance(node, ast.Name)}
        body = [node for node in ast.parse(code).body if getattr(node, "name", None) in used]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return (), ()
    functions = tuple(node.name for node in body if isinstance(node, ast.FunctionDef))
    return functions, tuple(node.name for node in body if isinstance(node, ast.ClassDef))


def _own(row: _Fields) -> Problem:
    prompt, checks = row.text("prompt"), "\n".join(row.texts("tests")) + "\n"
    solution = row.text("solution", "")
    return Problem(row.name(), prompt, HUMANEVAL_STOP, prompt, checks, solution=solution)


_READERS = {"humaneval": _humaneval, "mbpp": _mbpp, "tests": _own}
