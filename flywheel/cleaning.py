"""The operations of `data.process` and `finetune.process`: each takes rows and yields rows and what it drops.

A signature is the schema of an operation's arguments: names, types and ranges are checked against it before a run.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from flywheel.errors import RecipeError
from flywheel.recipe import Operation
from flywheel.record import Dropped, Record

Rows = Iterator[Record | Dropped]


def normalize_newlines(rows: Iterable[Record]) -> Rows:
    """One newline at the end of each line and text; no byte order mark, no spaces at the end of lines. Tabs stay.

    A text that was nothing else is dropped as `empty`.
    """
    for row in rows:
        changed = _map_text(row, _normal_lines)
        if changed.text == "":
            yield _drop(row, "empty")
        else:
            yield changed.with_fields(text=f"{changed.text}\n") if changed.text is not None else changed


def unicode_nfc(rows: Iterable[Record]) -> Rows:
    """Compose characters (Unicode normalization form C)."""
    import unicodedata

    for row in rows:
        yield _map_text(row, lambda text: unicodedata.normalize("NFC", text))


def length_filter(
    rows: Iterable[Record],
    min: Annotated[int, Field(ge=0)] = 0,
    max: Annotated[int | None, Field(ge=1)] = None,
) -> Rows:
    """Drop texts of fewer than `min` or more than `max` characters: `too_short`, `too_long`. Pictures pass."""
    for row in rows:
        parts = [part for part in (row.text, row.prompt, row.completion) if part is not None]
        length = sum(map(len, parts))
        if parts and length < min:
            yield _drop(row, "too_short")
        elif parts and max is not None and length > max:
            yield _drop(row, "too_long")
        else:
            yield row


def exact_dedup(rows: Iterable[Record]) -> Rows:
    """Drop rows whose content was there before: `exact_duplicate`."""
    from flywheel import dedup

    yield from dedup.exact(rows)


def near_dedup(rows: Iterable[Record], threshold: Annotated[float, Field(gt=0, le=1)] = 0.8) -> Rows:
    """Drop texts at least `threshold` similar to an earlier one (Jaccard over five-word shingles): `near_duplicate`."""
    from flywheel import dedup

    yield from dedup.near(rows, threshold)


def docstring_pairs(
    rows: Iterable[Record],
    max_chars: Annotated[int, Field(ge=1)] = 1200,
    min_words: Annotated[int, Field(ge=1)] = 4,
) -> Rows:
    """Replace each code row by one (function, docstring) pair for each function it documents.

    A row that gives none is dropped: `no_pairs`, or `syntax_error` where it is not Python.
    """
    from flywheel import docstrings

    for row in rows:
        try:
            found: list[Record | Dropped] = list(docstrings.pairs(row, max_chars, min_words))
        except SyntaxError:
            yield _drop(row, "syntax_error")
            continue
        yield from found or [_drop(row, "no_pairs")]


OPERATIONS: dict[str, Callable[..., Rows]] = {
    "normalize_newlines": normalize_newlines,
    "unicode_nfc": unicode_nfc,
    "length_filter": length_filter,
    "exact_dedup": exact_dedup,
    "near_dedup": near_dedup,
    "docstring_pairs": docstring_pairs,
}
EXPANDING = {"docstring_pairs"}
"""Operations that may turn one row into several; they belong under `finetune.process`."""


def check_operations(operations: Sequence[Operation], key: str = "data.process") -> None:
    """Raise RecipeError at the first operation or argument that does not exist or does not fit; reads no data.

    `key` is the recipe key that holds the operations.
    """
    for position, operation in enumerate(operations):
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
            raise _unknown(f"{place}: operation", name, OPERATIONS)
        if name in EXPANDING and key == "data.process":
            raise RecipeError(
                place,
                found=f"{name}, which makes several rows of one",
                expected="an operation that keeps or drops rows",
                remedy=f"move {name} to `finetune.process`",
            )
        _check_arguments(place, name, arguments)


def named(operation: Operation) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments of an operation as a recipe writes it."""
    if isinstance(operation, str):
        return operation, {}
    return next(iter(operation.items()), ("", {}))


def _check_arguments(place: str, name: str, arguments: Mapping[str, Any]) -> None:
    function = OPERATIONS[name]
    allowed = list(inspect.signature(function).parameters)[1:]
    hints = get_type_hints(function, include_extras=True)
    for argument, value in arguments.items():
        if argument not in allowed:
            raise _unknown(f"{place}: argument of {name}", argument, allowed)
        try:
            TypeAdapter(hints[argument]).validate_python(value, strict=True)
        except ValidationError as error:
            raise RecipeError(
                f"{place}: {name}.{argument}",
                found=repr(value),
                expected=error.errors()[0]["msg"],
                remedy=f"correct the value of {argument}",
            ) from error
    if (arguments.get("max") or float("inf")) < arguments.get("min", 0):
        raise RecipeError(
            f"{place}: {name}", found="max below min", expected="min <= max", remedy="exchange or correct the two"
        )


def _unknown(thing: str, found: str, known: Iterable[str]) -> RecipeError:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.0)
    expected = ", ".join(known) or "no arguments"
    remedy = f"did you mean {near[0]}?" if near else "leave it out"
    return RecipeError(f"{thing} that does not exist", found=found, expected=expected, remedy=remedy)


def _drop(row: Record, reason: str) -> Dropped:
    return Dropped(row.id, reason, str(row.origin.get("path", "")))


def _map_text(row: Record, change: Callable[[str], str]) -> Record:
    fields = {name: getattr(row, name) for name in ("text", "prompt", "completion")}
    return row.with_fields(**{name: change(text) for name, text in fields.items() if text is not None})


def _normal_lines(text: str) -> str:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip(" \t") for line in lines).rstrip("\n")
