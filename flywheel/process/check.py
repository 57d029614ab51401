"""Operations as a recipe writes them: their names, arguments and places, checked before any data is read."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from flywheel.errors import RecipeError
from flywheel.process.table import OPERATIONS, Kind
from flywheel.recipe_base import Operation

ALLOWED: dict[str, tuple[Kind, ...]] = {
    "data.process": ("rows", "corpus"),
    "data.augment": ("augment",),
    "finetune.process": ("rows", "corpus", "expand"),
}
"""Recipe key → the kinds of operations that may stand there."""
HOME: dict[Kind, str] = {
    "rows": "data.process",
    "corpus": "data.process",
    "augment": "data.augment",
    "expand": "finetune.process",
}
DOES: dict[Kind, str] = {
    "rows": "keeps, changes or drops rows",
    "corpus": "keeps, changes or drops rows",
    "augment": "adds varied copies of rows",
    "expand": "makes several rows of one",
}


def check_operations(operations: Sequence[Operation], key: str = "data.process", first: int = 0) -> None:
    """Raise RecipeError at the first operation or argument that does not exist or does not fit; reads no data.

    `key` is the recipe key that holds the operations, the first of which has the number `first` there.
    """
    for position, operation in enumerate(operations, first):
        place = f"{key}[{position}]"
        name, arguments = named(operation)
        if isinstance(operation, Mapping) and len(operation) != 1:
            raise RecipeError(
                place,
                found=f"{len(operation)} operations in one item",
                expected="one",
                remedy="write each as its own item",
            )
        if name not in OPERATIONS:
            fitting = [known for known, operation in OPERATIONS.items() if operation.kind in ALLOWED[key]]
            near = difflib.get_close_matches(name, OPERATIONS, n=1, cutoff=0.0)
            raise _unknown(f"{place}: operation", name, [*dict.fromkeys((*fitting, *near))])
        kind = OPERATIONS[name].kind
        if kind not in ALLOWED[key]:
            raise RecipeError(
                place,
                found=f"{name}, which {DOES[kind]}",
                expected="an operation that " + " or ".join(dict.fromkeys(DOES[k] for k in ALLOWED[key])),
                remedy=f"move {name} to `{HOME[kind]}`",
            )
        _check_arguments(place, name, arguments)


def named(operation: Operation) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments of an operation as a recipe writes it."""
    if isinstance(operation, str):
        return operation, {}
    return next(iter(operation.items()), ("", {}))


def files(operations: Iterable[Operation]) -> Iterator[Path]:
    """The files that arguments of operations name, or that lie in a directory they name: their bytes are inputs too."""
    for operation in operations:
        for argument in named(operation)[1].values():
            for value in argument if isinstance(argument, list) else [argument]:
                if isinstance(value, str) and value and (path := Path(value).expanduser()).exists():
                    yield from [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def modules(operations: Iterable[Operation]) -> tuple[str, ...]:
    """The modules that hold some operations."""
    names = [named(operation)[0] for operation in operations]
    return tuple(dict.fromkeys(OPERATIONS[name].module for name in names if name in OPERATIONS))


def _check_arguments(place: str, name: str, arguments: Mapping[str, Any]) -> None:
    operator = OPERATIONS[name]
    function = operator.function(name)
    parameters = list(inspect.signature(function).parameters.values())[operator.kind != "corpus" :]
    hints = get_type_hints(function, include_extras=True)
    allowed = [parameter.name for parameter in parameters]
    for argument, value in arguments.items():
        if argument not in allowed:
            raise _unknown(f"{place}: argument of {name}", argument, allowed)
        try:
            TypeAdapter(hints[argument]).validate_python(value, strict=True)
        except ValidationError as error:
            raise RecipeError(
                f"{place}: {name}.{argument}",
                found=repr(value),
                expected=error.errors()[0]["msg"].removeprefix("Input should be ").removeprefix("Value error, "),
                remedy=f"correct the value of {argument}",
            ) from error
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and parameter.name not in arguments:
            raise RecipeError(
                f"{place}: {name}",
                found=f"no {parameter.name}",
                expected=f"{parameter.name}, which has no default",
                remedy=f"write `{name}: {{{parameter.name}: ...}}`",
            )
    if (arguments.get("max") or float("inf")) < (arguments.get("min") or 0):
        raise RecipeError(
            f"{place}: {name}", found="max below min", expected="min <= max", remedy="exchange or correct the two"
        )


def _unknown(thing: str, found: str, known: Iterable[str]) -> RecipeError:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.0)
    expected = ", ".join(known) or "no arguments"
    remedy = f"did you mean {near[0]}?" if near else "leave it out"
    return RecipeError(f"{thing} that does not exist", found=found, expected=expected, remedy=remedy)
