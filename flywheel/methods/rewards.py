"""Programmable rewards: what an answer is worth, for group relative policy optimization.

A recipe names them by `REWARDS`. A reward of one answer gives a number, by convention between 0 and 1, or None where
it has no opinion, such as where a row has no answer to compare with. Rewards that a user writes are in a file of his
own and see all answers of a step at once.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.errors import RecipeError, TrainingError
from flywheel.methods.dialogue import Said, plain_text
from flywheel.metrics import code
from flywheel.recipe_train import Argument

Numbers = list[float | None]
Reward = Callable[..., Numbers]
"""`(prompts, completions, *, completion_ids, completion, label)`: a prompt is a text or a conversation, a completion a
text; the last two are what the rows hold."""

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Answer:
    """One drawn answer."""

    prompt: Said
    text: str
    tokens: int
    """Its length, the token that ends it included."""
    reference: str | None
    """The row's own answer."""


def exact_match(answer: Answer, ignore_case: bool = False) -> float | None:
    """1 where an answer is the row's own, white space around it aside."""
    if answer.reference is None:
        return None
    return float(_folded(answer.text, ignore_case).strip() == _folded(answer.reference, ignore_case).strip())


def number_match(answer: Answer) -> float | None:
    """1 where the last number of an answer is the last one of the row's own."""
    wanted = _last_number(answer.reference or "")
    return None if wanted is None else float(_last_number(answer.text) == wanted)


def rouge_l(answer: Answer) -> float | None:
    """F-measure of the longest common subsequence of words with the row's own answer (Lin 2004)."""
    if answer.reference is None:
        return None
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"]).score(answer.reference, answer.text)["rougeL"].fmeasure)


def regex_match(answer: Answer, pattern: str) -> float:
    """1 where a regular expression of Python finds something in an answer."""
    return float(re.search(pattern, answer.text) is not None)


def contains(answer: Answer, text: str | None = None, ignore_case: bool = False) -> float | None:
    """1 where an answer contains a text, or the row's own answer where no text is given."""
    wanted = answer.reference if text is None else text
    return None if wanted is None else float(_folded(wanted, ignore_case).strip() in _folded(answer.text, ignore_case))


def parses(answer: Answer, with_prompt: bool = False) -> float:
    """1 where Python's parser accepts an answer that is not blank, or prompt and answer together."""
    source = plain_text(answer.prompt) + answer.text if with_prompt else answer.text
    return float(bool(answer.text.strip()) and code.parses(source))


def length(answer: Answer, max_tokens: int, min_tokens: int = 0) -> float:
    """1 for an answer of so many tokens, falling to 0 at none and at twice as many."""
    if answer.tokens < min_tokens:
        return answer.tokens / min_tokens
    return min(1.0, max(0.0, 2 - answer.tokens / max(max_tokens, 1)))


def json_valid(answer: Answer, required: Sequence[str] = ()) -> float:
    """1 where an answer is JSON, an object with all required keys where there are such."""
    try:
        found = json.loads(answer.text)
    except (ValueError, RecursionError):
        return 0.0
    return float(not required or (isinstance(found, dict) and set(required) <= found.keys()))


def each(reward: Callable[..., float | None]) -> Callable[..., Reward]:
    """A reward of one answer as one of all answers of a step."""

    def made(**arguments: Any) -> Reward:
        def rewards(prompts: Any, completions: Any, *, completion_ids: Any, **columns: Any) -> Numbers:
            references = columns.get("completion") or [None] * len(completions)
            lengths = map(len, completion_ids)
            answers = map(Answer, prompts, completions, lengths, references)
            return [reward(answer, **arguments) for answer in answers]

        return rewards

    made.__signature__ = _without_answer(reward)  # type: ignore[attr-defined]
    return made


def _without_answer(reward: Callable[..., Any]) -> inspect.Signature:
    return inspect.Signature(list(inspect.signature(reward).parameters.values())[1:])


def python(file: str, function: str) -> Reward:
    """A function of a user's own file: `function(prompts, completions, **columns)` gives a list of numbers."""
    path = Path(file).expanduser()
    place = f"reward {function} of {path}"
    spec = importlib.util.spec_from_file_location(f"rewards_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TrainingError(place, found="no such Python file", expected="a file that defines it", remedy="mend `file`")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        written: Callable[..., Any] = getattr(module, function)
    except Exception as error:  # a user's file may fail in any way
        raise TrainingError(place, found=f"{type(error).__name__}: {error}", remedy="mend the file") from error

    def rewards(prompts: Any, completions: Any, **columns: Any) -> Numbers:
        try:
            found = [None if value is None else float(value) for value in written(prompts, completions, **columns)]
        except Exception as error:
            raise TrainingError(place, found=f"{type(error).__name__}: {error}", remedy="mend the function") from error
        if len(found) != len(completions) or any(v is not None and not math.isfinite(v) for v in found):
            raise TrainingError(
                place, found=f"{found[:8]}", expected=f"{len(completions)} finite numbers, one for each answer"
            )
        return found

    return rewards


def model(path: str) -> Reward:
    """A reward model: a checkpoint that gives one number to a text (safetensors, no code from it)."""
    from flywheel.methods.reward_model import opened

    return opened(Path(path).expanduser())


REWARDS: Mapping[str, Callable[..., Reward]] = {
    "exact_match": each(exact_match),
    "number_match": each(number_match),
    "rouge_l": each(rouge_l),
    "regex_match": each(regex_match),
    "contains": each(contains),
    "parses": each(parses),
    "length": each(length),
    "json_valid": each(json_valid),
    "python": python,
    "model": model,
}
"""Name → what makes the reward from the arguments in the recipe."""


def build(reward_funcs: Sequence[Argument]) -> list[Reward]:
    """The rewards of a recipe, each with the name that the recipe gives it. Raises RecipeError or TrainingError."""
    check(reward_funcs)
    found = []
    for name, arguments in map(_named, reward_funcs):
        reward = REWARDS[name](**arguments)
        reward.__name__ = str(arguments.get("function", name))
        found.append(reward)
    return found


def check(reward_funcs: Iterable[Argument]) -> None:
    """Raises RecipeError for a name or an argument that does not exist, or one that is missing."""
    for name, arguments in map(_named, reward_funcs):
        if name not in REWARDS:
            near = difflib.get_close_matches(name, REWARDS, n=1, cutoff=0.0)
            raise RecipeError(
                "reward_funcs: a reward that does not exist",
                found=name,
                expected=", ".join(REWARDS),
                remedy=f"did you mean {near[0]}?" if near else "write one of these",
            )
        try:
            inspect.signature(REWARDS[name]).bind(**arguments)
            if "pattern" in arguments:
                re.compile(str(arguments["pattern"]))
        except (TypeError, re.error) as error:
            signature = ", ".join(map(str, inspect.signature(REWARDS[name]).parameters.values()))
            raise RecipeError(
                f"reward_funcs: arguments of {name}", found=str(error), expected=signature, remedy="mend the recipe"
            ) from error


def files(reward_funcs: Iterable[Argument]) -> Iterator[Path]:
    """The files that rewards are made of: a user's own, and those of a reward model. Their bytes are inputs too."""
    for name, arguments in map(_named, reward_funcs):
        path = Path(str(arguments.get("file" if name == "python" else "path", ""))).expanduser()
        if name in ("python", "model"):
            yield from [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _named(argument: Argument) -> tuple[str, Mapping[str, Any]]:
    return (argument, {}) if isinstance(argument, str) else next(iter(argument.items()), ("", {}))


def _folded(text: str, ignore_case: bool) -> str:
    return text.casefold() if ignore_case else text


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
