"""What is known of a recipe beyond its schema: names of operations, metrics and methods that exist and fit."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from flywheel import arguments
from flywheel.errors import RecipeError
from flywheel.gate import LIMITS
from flywheel.methods import rewards
from flywheel.metrics.table import METRICS
from flywheel.modalities.rooms import ROOMS, Entry
from flywheel.process.check import check_operations
from flywheel.recipe import Recipe
from flywheel.recipe_base import Operation
from flywheel.recipe_train import Grpo

ASKED = {"speaker": "write texts", "painter": "draw pictures"}
"""What a metric needs of a model, in words."""
Place = Callable[[tuple[int | str, ...]], str]
"""Where a key stands, for people: `recipe.yaml:12: data.process`."""


def check(recipe: Recipe, place: Place) -> None:
    """Raise RecipeError for what does not exist or does not fit, though the schema admits it."""
    _check_operations(recipe.data.process, ("data", "process"), place)
    _check_operations(recipe.data.augment, ("data", "augment"), place)
    if recipe.finetune is not None:
        _check_operations(recipe.finetune.process, ("finetune", "process"), place)
    _check_stages(recipe, place)
    _check_measures(recipe.evaluate.metrics, ROOMS[recipe.model.modality], place)
    _check_metrics(recipe, place)


def _check_stages(recipe: Recipe, place: Place) -> None:
    """What a stage may have here: a method that fits the modality, and of `finetune` alone other rows."""
    modality = recipe.model.modality
    fitting = ROOMS[modality].methods
    for name, stage in (("train", recipe.train), ("finetune", recipe.finetune)):
        if isinstance(stage, Grpo):
            rewards.check(stage.reward_funcs)
        method = getattr(stage, "method", None)
        if method is not None and method not in fitting:
            raise RecipeError(
                place((name, "method")),
                found=f"{method!r}",
                expected=f"one of {', '.join(fitting)} ({modality})",
                remedy="choose one of them, or leave the key out to learn rows as they are",
            )
    positions = None if recipe.model.path else getattr(recipe.model, "max_position_embeddings", None)
    for name, stage in (("train", recipe.train), ("finetune", recipe.finetune)):
        if positions is not None and stage is not None and stage.max_length > positions:
            raise RecipeError(
                place((name, "max_length")),
                found=str(stage.max_length),
                expected=f"at most {positions}, which is model.max_position_embeddings",
                remedy="lower max_length, or raise max_position_embeddings",
            )
    for key in ("process", "replay"):
        if getattr(recipe.train, key, None):
            raise RecipeError(
                place(("train", key)),
                found=f"`{key}` in the first stage",
                expected="it under `finetune` alone",
                remedy="move it to `finetune`" + (", or to `data.process`" if key == "process" else ""),
            )


def _check_operations(operations: Sequence[Operation], keys: tuple[str, str], place: Place) -> None:
    """Names, arguments and places of operations; the line in the file goes before what is wrong with one of them."""
    for position, operation in enumerate(operations):
        try:
            check_operations([operation], ".".join(keys), position)
        except RecipeError as error:
            line, colon, _ = place((*keys, position)).rpartition(": ")
            thing = f"{line}{colon}{error.thing}"
            raise RecipeError(thing, found=error.found, expected=error.expected, remedy=error.remedy) from error


def _check_measures(measures: Sequence[Operation], room: Entry, place: Place) -> None:
    """Names and arguments of the further metrics, and whether the modality can give them what they need."""
    for position, measure in enumerate(measures):
        where = place(("evaluate", "metrics", position))
        arguments.require_one(where, measure, "metrics")
        if measure in measures[:position]:
            raise RecipeError(where, found="the same metric twice", expected="it once", remedy="leave one out")
        name, given = arguments.named(measure)
        if name not in METRICS:
            raise arguments.unknown(f"{where}: metric", name, METRICS)
        if METRICS[name].needs not in room.offers:
            raise RecipeError(
                where,
                found=f"{name}, which is for models that {ASKED[METRICS[name].needs]}",
                expected=f"one for models that {' and '.join(map(ASKED.__getitem__, room.offers)) or 'do neither'}",
                remedy="leave it out",
            )
        arguments.check(where, name, METRICS[name].function(name), given)


def _check_metrics(recipe: Recipe, place: Place) -> None:
    """An objective may only name what is measured: found out now, not after the training."""
    further = [METRICS[arguments.named(m)[0]].gives for m in recipe.evaluate.metrics]
    own = ROOMS[recipe.model.modality].metrics
    second = () if recipe.finetune is None else tuple(f"finetune_{name}" for name in own)
    known = (*own, *second, *(pattern for gives in further for pattern in gives))
    metric = ("objective", "metric")
    named: list[tuple[tuple[str, ...], str, tuple[str, ...]]] = [(metric, recipe.objective.metric, known)]
    bounded = (*known, *LIMITS)
    named += [(("objective", "thresholds", name), name, bounded) for name in recipe.objective.thresholds]
    named += [(("objective", "reported"), name, known) for name in recipe.objective.reported]
    if recipe.tune is not None and recipe.tune.metric is not None:
        named.append((("tune", "metric"), recipe.tune.metric, known))
    for name, threshold in recipe.objective.thresholds.items():
        if threshold.beats == "before" and name not in (*own, *second):
            raise RecipeError(
                place(("objective", "thresholds", name)),
                found=f"`beats: before` for {name}",
                expected="it for a metric of the modality itself: the others are not measured before training",
                remedy=f"choose one of {', '.join(own)}, or give {name} a min or a max",
            )
    for loc, name, admitted in named:
        if not any(fnmatchcase(name, pattern) for pattern in admitted):
            near = difflib.get_close_matches(name, admitted, n=1, cutoff=0.4)
            raise RecipeError(
                place(loc),
                found=f"metric `{name}`",
                expected=f"one of {', '.join(admitted)} ({recipe.model.modality})",
                remedy=f"did you mean `{near[0]}`?" if near else "",
            )
