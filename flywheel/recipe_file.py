"""Recipe files: read YAML, apply overrides, and explain every mistake: file, line, key, found, expected, nearest."""

from __future__ import annotations

import copy
import difflib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flywheel import recipe_checks
from flywheel.errors import RecipeError
from flywheel.recipe import Recipe
from flywheel.recipe_checks import Place
from flywheel.recipe_tune import Tune
from flywheel.steps import wheel

MAX_SIZE, MAX_DEPTH, MAX_PROBLEMS = 100_000, 50, 20
"""Characters of a recipe, levels of it, and mistakes told at a time. YAML is slow: a megabyte takes a minute."""
TRIED = ("ingest", "prepare", "validate", "train", "finetune", "evaluate")
"""The steps of a trial of `flywheel tune`: what comes before the gate and changes what is measured."""


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides (values are YAML). Raises RecipeError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_SIZE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}", found=str(error), expected="a readable UTF-8 YAML file") from error
    root, data = _parse(path, text)
    for override in overrides:
        _override(data, override)
    return _validate(data, lambda loc: _place(path, root, loc))


def resolve(recipe: Recipe | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or one that is written out already, with the overrides applied."""
    if isinstance(recipe, Path):
        return load(recipe, overrides)
    data = recipe.model_dump(mode="json", by_alias=True)
    for override in overrides:
        _override(data, override)
    return _validate(data, lambda loc: ".".join(map(str, loc)))


def _parse(path: Path, text: str) -> tuple[yaml.Node, dict[str, Any]]:
    """The YAML tree with positions, and its values."""
    if len(text) > MAX_SIZE:
        raise RecipeError(f"recipe {path}", found="a longer text", expected=f"at most {MAX_SIZE} characters")
    try:
        _refuse_bombs(str(path), text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        found = getattr(error, "problem", None) or str(error)
        raise RecipeError(where, found=found, expected="valid YAML") from error
    except ValueError as error:  # a number of more digits than Python reads, or a date that is none
        raise RecipeError(str(path), found=str(error), expected="numbers and dates that can be read") from error
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{path}:1", found="no mapping at the top level", expected="keys such as name, data, model")
    _refuse_doubled_keys(path, root)
    return root, data


def _refuse_bombs(name: str, text: str) -> None:
    """Refuse aliases (a bomb of them is short) and deep nesting (which takes quadratic time) before a tree is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{name}:{event.start_mark.line + 1}" if event.start_mark else name
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(where, found="a YAML alias", expected="values written out")
        if depth > MAX_DEPTH:
            raise RecipeError(where, found="nesting too deep to read", expected=f"at most {MAX_DEPTH} levels")


def _refuse_doubled_keys(path: Path, node: yaml.Node) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise RecipeError(f"{path}:{key.start_mark.line + 1}: {name}", found="the key twice", expected="once")
            seen.add(name)
            _refuse_doubled_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_doubled_keys(path, item)


def _override(data: Any, override: str) -> None:
    dotted, equals, raw = override.partition("=")
    if not equals:
        raise RecipeError(f"override {override!r}", expected="KEY.PATH=VALUE", remedy="for example train.max_steps=10")
    try:
        _refuse_bombs(f"override {override!r:.80}", raw)
        value = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"override {override!r:.80}", found=f"value {raw!r:.80}", expected="a YAML value") from error
    _put(data, dotted, value, f"override {override!r}")


def keys(dotted: str) -> list[int | str]:
    """The parts of a key: `data.process[2].near_dedup` and `data.process.2.near_dedup` are the same."""
    parts = dotted.replace("[", ".").replace("]", "").split(".")
    return [int(part) if part.isdigit() else part for part in parts]


def _put(data: Any, dotted: str, value: Any, thing: str) -> None:
    """Set a key; a name alone in a list becomes one with arguments where the key leads into it."""
    *parents, last = keys(dotted)
    here: Any = data
    try:
        for key in parents:
            if isinstance(here, dict) and here.get(key) is None:
                here[key] = {}
            elif isinstance(here, list) and isinstance(key, int) and isinstance(here[key], str):
                here[key] = {here[key]: {}}
            here = here[key]
        here[last] = value
    except (KeyError, IndexError, TypeError) as error:
        raise RecipeError(thing, found=f"no place for {dotted}", expected="an existing key") from error


def _validate(data: Any, place: Place) -> Recipe:
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        more = [RecipeError(f"{len(details) - MAX_PROBLEMS} more mistakes")] if len(details) > MAX_PROBLEMS else []
        details = details[:MAX_PROBLEMS]
        problems = [explain(d, place) for d in details if not _follows(d, details)] + more
        raise problems[0] if len(problems) == 1 else RecipeError("\n".join(map(str, problems))) from None
    recipe_checks.check(recipe, place)
    if recipe.tune is not None:
        _check_space(recipe.tune, data, place)
    return recipe


def _check_space(tune: Tune, data: Any, place: Place) -> None:
    """Every key of a search must be one that a trial reads, and admit all of its values: each is put in and checked."""
    seen: dict[tuple[int | str, ...], str] = {}
    for key, values in tune.space.items():
        where = place(("tune", "space", key))
        if (twin := seen.setdefault(tuple(keys(key)), key)) != key:
            raise RecipeError(where, found=f"the same key as `{twin}`", expected="each key once")
        for value in values.probes:
            changed = copy.deepcopy(data)
            changed["tune"] = None
            _put(changed, key, value, where)
            _check_point(changed, key, where, alone=len(tune.space) == 1)


def _check_point(data: Any, key: str, where: str, *, alone: bool) -> None:
    """One value of one searched key. What only has to fit to other keys is told of later, where those change too."""
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        details = [d for d in error.errors(include_url=False) if alone or d["type"] != "value_error"]
        if details:
            raise explain(details[0], lambda _: where) from None
        return
    recipe_checks.check(recipe, lambda _: where)
    read = [keys(k) for step in wheel(recipe) for k in step.keys if step.name in TRIED]
    if not any(all(a == b for a, b in zip(k, keys(key), strict=False)) for k in read):
        known = sorted({str(k[0]) for k in read})
        raise RecipeError(
            where, found="a key that does not change what is measured", expected=f"one below {', '.join(known)}"
        )


def _follows(detail: ErrorDetails, others: Sequence[ErrorDetails]) -> bool:
    """Whether a "too short" only says that the items inside were refused for the mistakes that are told anyway."""
    inside = (o["loc"][: len(detail["loc"])] == detail["loc"] for o in others if o is not detail)
    return detail["type"] == "too_short" and any(inside)


def explain(detail: ErrorDetails, place: Place) -> RecipeError:
    """A mistake that pydantic found in a recipe, for its writer."""
    loc, context = detail["loc"], detail.get("ctx", {})
    thing = place(loc)
    if detail["type"] == "extra_forbidden":
        known = sorted(_known_keys(loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.4)
        return RecipeError(
            thing,
            found=f"unknown key `{loc[-1]}`",
            expected=f"one of {', '.join(known)}",
            remedy=f"did you mean `{near[0]}`?" if near else "remove the key",
        )
    if detail["type"] == "missing":
        return RecipeError(thing, found="the key is missing", expected=f"a value for `{loc[-1]}`")
    found = f"{_excerpt(detail['input'])} ({type(detail['input']).__name__})"
    if detail["type"] == "union_tag_invalid":
        key = _discriminator(context)
        tags = _choices(loc, key)
        near = difflib.get_close_matches(str(context["tag"]), tags, n=1, cutoff=0.4)
        return RecipeError(
            place((*loc, key)),
            found=repr(context["tag"]),
            expected=f"one of {', '.join(tags)}",
            remedy=f"did you mean `{near[0]}`?" if near else "",
        )
    if detail["type"] == "union_tag_not_found":
        key = _discriminator(context)
        return RecipeError(f"{thing}.{key}", found="the key is missing", expected=f"a value for `{key}`")
    return RecipeError(
        thing, found=found, expected=detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    )


def _discriminator(context: Mapping[str, Any]) -> str:
    """The key that says which arm of a union is meant; pydantic names one that a function reads `_key()`."""
    return str(context["discriminator"]).strip("'").removeprefix("_").removesuffix("()")


def _choices(loc: tuple[int | str, ...], key: str) -> list[str]:
    """The values of a key over all arms of the union at `loc`."""
    found: list[str] = []
    for model in _models(loc):
        if key in model.model_fields:
            arms = _arms(model.model_fields[key].annotation)
            found += [str(value) for arm in arms if get_origin(arm) is Literal for value in get_args(arm)]
    return list(dict.fromkeys(found))


def _excerpt(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # a number of more digits than Python writes
        return "a long number"


def _place(path: Path, node: yaml.Node | None, loc: tuple[int | str, ...]) -> str:
    """`file:line: dotted.key` of the deepest part of `loc` that is in the file; union tags in `loc` are no keys."""
    line, keys = 1, []
    for part in loc:
        child = _child(node, part)
        if child is not None:
            line, node = child
            keys.append(str(part))
        elif part == loc[-1]:
            keys.append(str(part))
    return f"{path}:{line}: {'.'.join(keys)}"


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if str(key.value) == str(part):
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _known_keys(loc: tuple[int | str, ...]) -> set[str]:
    """The keys that the schema admits at `loc`."""
    return {field.alias or name for model in _models(loc) for name, field in model.model_fields.items()}


def _models(loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The sections that may stand at `loc`."""
    here: Any = Recipe
    for part in loc:
        here = _step(here, part)
    return [m for m in _arms(here) if isinstance(m, type) and issubclass(m, BaseModel)]


def _step(annotation: Any, part: int | str) -> Any:
    """The annotation below `annotation` at a key, an index or a union's tag."""
    arms = _arms(annotation)
    for arm in arms:
        if get_origin(arm) in (tuple, dict):
            return get_args(arm)[-1 if get_origin(arm) is dict else 0]
        if not (isinstance(arm, type) and issubclass(arm, BaseModel)):
            continue
        for name, field in arm.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
            if len(arms) > 1 and any(part in get_args(v) for v in _arms(field.annotation) if get_origin(v) is Literal):
                return arm
    return annotation


def _arms(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _arms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(arm for part in get_args(annotation) for arm in _arms(part))
    return (annotation,)
