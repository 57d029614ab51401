"""Rows that a model writes: prompts from templates, and its completions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random

from flywheel.errors import RecipeError
from flywheel.recipe_sources import ModelSource
from flywheel.runtimes.base import Sampling
from flywheel.sources.slots import Grammar, Row

AT_ONCE = 32
"""Prompts handed to the model together."""
NAMES = ("max_new_tokens", "temperature", "top_k", "top_p")
"""Names of GenerationConfig that a model of the registry knows; without `temperature` it is greedy."""


def prompts(source: ModelSource) -> Iterator[str]:
    """`count` prompts; prompt i depends on the seed and i alone. Raises RecipeError for a template with a fault."""
    grammar = Grammar(source.slots)
    grammar.check(source.prompts, "prompts")
    for number in range(source.count):
        random = Random(f"{source.seed}:{number}")
        template = random.choice(source.prompts)
        yield Row(grammar, random).fill(template)


def rows(source: ModelSource, complete: Callable[[Sequence[str]], Sequence[str]]) -> Iterator[dict[str, str]]:
    """`prompt` and `completion` of every row; `complete` gets the prompts in order, AT_ONCE at a time."""
    waiting = prompts(source)
    while batch := list(islice(waiting, AT_ONCE)):
        for prompt, completion in zip(batch, complete(batch), strict=True):
            yield {"prompt": prompt, "completion": completion}


def sampling(source: ModelSource) -> Sampling:
    """How completions are drawn. Raises RecipeError for a name or value under `generation` that means nothing here."""
    from pydantic import TypeAdapter, ValidationError

    unknown = [name for name in source.generation if name not in NAMES]
    if unknown:
        raise _unusable(f"{unknown[0]}", f"one of {', '.join(NAMES)}")
    try:
        found: Sampling = TypeAdapter(Sampling).validate_python({"seed": source.seed, **source.generation})
    except ValidationError as error:
        raise _unusable(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}", "a value of its kind") from error
    if found.max_new_tokens < 1 or found.temperature < 0 or found.top_k < 0 or not 0 < found.top_p <= 1:
        raise _unusable(
            str(dict(source.generation)), "max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1"
        )
    return found


def _unusable(found: str, expected: str) -> RecipeError:
    return RecipeError(
        "generation of a source of type model", found=found, expected=expected, remedy="correct `generation`"
    )
