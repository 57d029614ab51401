"""Arguments that a recipe gives to a named function, checked against its signature before anything runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, TypeAdapter, ValidationError

from flywheel.errors import RecipeError
from flywheel.recipe_base import Operation


def _existing_file(value: str) -> str:
    if not Path(value).expanduser().is_file():
        raise ValueError("a file that exists")
    return value


ExistingFile = Annotated[str, AfterValidator(_existing_file)]
"""The path of a file, looked for when the recipe is read."""


def named(operation: Operation) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments as a recipe writes them."""
    if isinstance(operation, str):
        return operation, {}
    return next(iter(operation.items()), ("", {}))


def require_one(place: str, operation: Operation, what: str) -> None:
    """Raise RecipeError for an item that names several functions, or none; `what` is their plural."""
    if isinstance(operation, Mapping) and len(operation) != 1:
        raise RecipeError(
            place,
            found=f"{len(operation)} {what} in one item",
            expected="one",
            remedy="write each as its own item",
        )


def check(place: str, name: str, function: Callable[..., Any], arguments: Mapping[str, Any], given: int = 1) -> None:
    """Raise RecipeError for the first argument that does not exist, does not fit or is missing.

    The first `given` parameters of the function are not the recipe's.
    """
    parameters = list(inspect.signature(function).parameters.values())[given:]
    hints = get_type_hints(function, include_extras=True)
    allowed = [parameter.name for parameter in parameters]
    for argument, value in arguments.items():
        if argument not in allowed:
            raise unknown(f"{place}: argument of {name}", argument, allowed)
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


def files(operations: Iterable[Operation]) -> Iterator[Path]:
    """The files that arguments name, or that lie in a directory they name: their bytes are inputs too."""
    for operation in operations:
        for argument in named(operation)[1].values():
            for value in argument if isinstance(argument, list) else [argument]:
                if isinstance(value, str) and value and (path := _existing(value)) is not None:
                    yield from [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _existing(value: str) -> Path | None:
    """The path that a text names, where there is one; a long text is no path."""
    try:
        path = Path(value).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def unknown(thing: str, found: str, known: Iterable[str]) -> RecipeError:
    """What to say of a name that does not exist."""
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.0)
    expected = ", ".join(known) or "no arguments"
    remedy = f"did you mean {near[0]}?" if near else "leave it out"
    return RecipeError(f"{thing} that does not exist", found=found, expected=expected, remedy=remedy)
