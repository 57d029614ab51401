"""The steps of a lifecycle and what each is made from, in the order of the wheel."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flywheel.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """One step. Its fingerprint covers its parents, these recipe keys, these inputs and all source it can reach."""

    name: str
    parents: tuple[str, ...]
    keys: tuple[str, ...]
    """Dotted recipe keys that it reads."""
    inputs: tuple[str, ...] = ()
    """What it reads from outside: `sources`, `operands` and `operands of metrics` (files that operations and metrics
    name), `checkpoint`, what the section of a training `stage` names, the `champion` in the registry, or `registry`:
    whether that still holds what was registered."""
    modules: tuple[str, ...] = ()
    """Source that tasks/<name>.py reaches by name only: `{sources}`, `{operations}`, `{features}`, `{method}`,
    `{metrics}`, `{room}` and `{runtime}`, or what is outside the core."""


_TOGETHER = ("resources.accelerators", "resources.num_nodes", "resources.strategy")
"""How many train together: their batches add up."""
_TRAINING = ("flywheel.launch", "{method}", "{room}")

_WHEEL = (
    Step("ingest", (), ("data.sources",), ("sources",), ("{sources}",)),
    Step(
        "prepare",
        ("ingest",),
        ("data.process", "data.split", "data.augment", "finetune.process", "seed"),
        ("operands",),
        ("{operations}",),
    ),
    Step(
        "validate",
        ("prepare",),
        ("data.validate", "data.split.by", "model.modality", "train.method", "finetune.method"),
        (),
        ("infra.expectations", "{room}"),
    ),
    Step("features", ("validate",), ("features",), (), ("{features}",)),
    Step("train", ("validate",), ("model", "train", "seed", *_TOGETHER), ("checkpoint", "stage"), _TRAINING),
    Step("finetune", ("train", "validate"), ("finetune", "peft", "seed", *_TOGETHER), ("stage",), _TRAINING),
    Step(
        "evaluate",
        ("validate", "train", "finetune"),
        ("evaluate", "model", "seed"),
        ("checkpoint", "operands of metrics"),
        ("{room}", "{metrics}"),
    ),
    Step(
        "champion",
        ("validate", "finetune"),
        ("evaluate", "model", "seed"),
        ("operands of metrics", "champion"),
        ("{room}", "{metrics}"),
    ),
    Step(
        "export",
        ("finetune", "validate"),
        ("optimize", "evaluate", "objective.metric", "seed"),
        (),
        ("{room}", "{runtime}"),
    ),
    Step("gate", ("evaluate", "champion", "export", "validate"), ("objective", "seed")),
    Step("register", ("export", "gate", "evaluate", "validate"), ("name",), ("registry",), ("infra.tracking",)),
    Step("deploy", ("register",), ("deploy",), (), ("serving.__main__", "serving.smoke", "{runtime}")),
)


def wheel(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of a recipe. Without a second stage `train` is the last one, and takes the adapter."""
    steps = [step for step in _WHEEL if step.name != "features" or recipe.features is not None]
    if recipe.finetune is not None:
        return tuple(steps)
    alone = []
    for step in steps:
        parents = tuple(dict.fromkeys("train" if p == "finetune" else p for p in step.parents))
        keys = tuple(k for k in step.keys if not k.startswith("finetune"))
        if step.name == "train":
            keys = (*keys, "peft")
        if step.name != "finetune":
            alone.append(replace(step, parents=parents, keys=keys))
    return tuple(alone)
