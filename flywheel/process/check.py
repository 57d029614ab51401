"""Operations as a recipe writes them: their names, arguments and places, checked before any data is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from flywheel import arguments as arguments_
from flywheel.arguments import named, require_one, unknown
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
        require_one(place, operation, "operations")
        if name not in OPERATIONS:
            fitting = [known for known, operation in OPERATIONS.items() if operation.kind in ALLOWED[key]]
            near = difflib.get_close_matches(name, OPERATIONS, n=1, cutoff=0.0)
            raise unknown(f"{place}: operation", name, [*dict.fromkeys((*fitting, *near))])
        kind = OPERATIONS[name].kind
        if kind not in ALLOWED[key]:
            raise RecipeError(
                place,
                found=f"{name}, which {DOES[kind]}",
                expected="an operation that " + " or ".join(dict.fromkeys(DOES[k] for k in ALLOWED[key])),
                remedy=f"move {name} to `{HOME[kind]}`",
            )
        function = OPERATIONS[name].function(name)
        arguments_.check(place, name, function, arguments, given=int(kind != "corpus"))


def modules(operations: Iterable[Operation]) -> tuple[str, ...]:
    """The modules that hold some operations."""
    names = [named(operation)[0] for operation in operations]
    return tuple(dict.fromkeys(OPERATIONS[name].module for name in names if name in OPERATIONS))
