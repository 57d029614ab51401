"""Templates with `{slot}`s, filled from lists of texts that may have slots themselves: a context-free grammar.

`{{` and `}}` stand for braces. Within one row a slot means the same wherever it is named; only inside its own expansion
(`expression: ["{digit}", "({expression} + {expression})"]`) it is drawn anew, with all that it is made of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from random import Random

from flywheel.errors import RecipeError

Filling = Sequence[str] | Mapping[str, int]
"""A list of texts, or `{"min": 1, "max": 99}` for a whole number of that range, both ends included."""
Slots = Mapping[str, Filling]

DEEPEST, LARGEST = 30, 1_000
"""Expansions inside each other, and in a row: beyond either, only the alternatives that end soonest are drawn."""

_TOKEN = re.compile(r"\{\{|\}\}|\{(\w+)\}|[^{}]+|.", re.DOTALL)
_Piece = tuple[bool, str]
"""Whether it is a slot, and the slot's name or the text."""


def fill(template: str, slots: Slots, random: Random) -> str:
    """One template filled on its own. Raises RecipeError for an unknown slot."""
    grammar = Grammar(slots)
    grammar.check([template])
    return Row(grammar, random).fill(template)


class Grammar:
    """Slots that are known to end. Raises RecipeError where one is unknown, empty, malformed or can never end."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        for name, filling in slots.items():
            if isinstance(filling, Mapping):
                _check_range(name, filling)
            elif not filling:
                raise _unusable(name, "an empty list", "at least one text")
            else:
                self.check(filling, f"slot {name}")
        self.soonest = self._soonest()

    def check(self, templates: Iterable[str], place: str = "templates") -> None:
        """Raises RecipeError where a template has a single brace or names a slot that is not there."""
        for template in templates:
            for is_slot, name in pieces(template):
                if is_slot and name not in self.slots:
                    known = ", ".join(self.slots) or "none is defined"
                    raise RecipeError(
                        f"{place}: {template!r}",
                        found=f"the slot {{{name}}}",
                        expected=f"one of the slots: {known}",
                        remedy=f"define {name} under `slots`, or write {{{{{name}}}}} for the text itself",
                    )

    def _soonest(self) -> dict[str, list[str]]:
        """For every list of texts those that end after the fewest expansions inside each other (a fixed point)."""
        height = {name: 0.0 if isinstance(filling, Mapping) else math.inf for name, filling in self.slots.items()}
        lists = {name: filling for name, filling in self.slots.items() if not isinstance(filling, Mapping)}
        for _ in lists:
            for name, texts in lists.items():
                height[name] = min(_height(text, height) for text in texts)
        for name in lists:
            if math.isinf(height[name]):
                raise _unusable(name, "every text of it leads back to itself", "one text that ends")
        return {n: [t for t in texts if _height(t, height) == height[n]] for n, texts in lists.items()}


class Row:
    """The slots of one row: each keeps the value that it was first given."""

    def __init__(self, grammar: Grammar, random: Random) -> None:
        self._grammar, self._random = grammar, random
        self._values: dict[str, str] = {}
        self._expansions = 0

    def fill(self, template: str) -> str:
        return self._expand(template, self._values, ())

    def _expand(self, template: str, values: dict[str, str], inside: tuple[str, ...]) -> str:
        return "".join(self._value(p, values, inside) if is_slot else p for is_slot, p in pieces(template))

    def _value(self, name: str, values: dict[str, str], inside: tuple[str, ...]) -> str:
        if name in inside:  # its own expansion: drawn anew, with all that it is made of
            return self._draw(name, {}, inside)
        if name not in values:
            values[name] = self._draw(name, values, inside)
        return values[name]

    def _draw(self, name: str, values: dict[str, str], inside: tuple[str, ...]) -> str:
        filling = self._grammar.slots[name]
        if isinstance(filling, Mapping):
            return str(self._random.randint(filling["min"], filling["max"]))
        self._expansions += 1
        short = len(inside) >= DEEPEST or self._expansions > LARGEST
        texts = self._grammar.soonest[name] if short else filling
        return self._expand(self._random.choice(texts), values, (*inside, name))


@lru_cache(maxsize=4_096)
def pieces(template: str) -> tuple[_Piece, ...]:
    """A template as texts and slots. Raises RecipeError for a single brace."""
    found: list[_Piece] = []
    for match in _TOKEN.finditer(template):
        token = match.group()
        if token in ("{", "}"):
            raise RecipeError(
                f"template {template!r}",
                found=f"a single {token} at character {match.start() + 1}",
                expected="{slot}, made of letters, digits and underscores",
                remedy=f"write {token * 2} for the brace itself",
            )
        name = match.group(1)
        found.append((False, token[0] if token in ("{{", "}}") else token) if name is None else (True, name))
    return tuple(found)


def _height(text: str, height: Mapping[str, float]) -> float:
    return 1 + max((height[name] for is_slot, name in pieces(text) if is_slot), default=0)


def _check_range(name: str, filling: Mapping[str, int]) -> None:
    if filling.keys() != {"min", "max"}:
        raise _unusable(name, f"the keys {', '.join(filling)}", "min and max")
    if filling["min"] > filling["max"]:
        raise _unusable(name, f"min {filling['min']} above max {filling['max']}", "min <= max")


def _unusable(name: str, found: str, expected: str) -> RecipeError:
    return RecipeError(f"slot {name}", found=found, expected=expected, remedy="correct it under `slots`")
