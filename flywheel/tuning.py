"""The search for better values of a recipe's keys: what is drawn, what it changes, and what the trials say.

A study always minimises: the value of a metric that is better when higher is taken with its sign changed. So direction
need not be known before the first evaluation, and the training loss that pruning looks at goes the same way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import yaml

from flywheel.errors import FlywheelError
from flywheel.recipe import Recipe
from flywheel.recipe_file import keys
from flywheel.recipe_tune import Choices, Tune, Values

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

REDUCTION = 3
"""Successive halving lets the best third go on."""
FIRST_RUNG = 9
"""It first compares after this part (one ninth) of the steps of the recipe as it is written."""
_ENOUGH = 4
"""Finished trials from which the importance of keys can be estimated at all."""

_OPTIMISER = (
    "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim weight_decay adam_beta1 adam_beta2 "
    "max_grad_norm bf16 torch_compile gradient_checkpointing dataloader_num_workers max_steps num_train_epochs "
    "save_steps max_loss_spike hang_seconds"
)
_ARCHITECTURE = (
    "model_type hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "tie_word_embeddings block_out_channels layers_per_block"
)
_ADAPTER = "r lora_alpha target_modules use_dora load_in_4bit"
_BATCHES = "per_device_train_batch_size gradient_accumulation_steps logging_steps replay"


def _below(sections: str, names: str) -> set[str]:
    return {f"{section}.{name}" for section in sections.split() for name in names.split()}


_SAME_TRAINING_LOSS = _below("train finetune", _OPTIMISER) | _below("model", _ARCHITECTURE) | _below("peft", _ADAPTER)
"""Keys that change how well a model learns, and neither the rows of a step nor what its loss is taken over."""
_SAME_HELDOUT_LOSS = _SAME_TRAINING_LOSS | _below("train finetune", _BATCHES) | {"peft.lora_dropout"}
"""Further keys that leave the loss on held-out rows comparable."""


class Pruned(FlywheelError):
    """A trial that was stopped because others did better at the same point. Trying again does not help it."""


@dataclass(frozen=True)
class Outcome:
    """One trial as it stands."""

    number: int
    state: Literal["finished", "pruned", "failed", "running"]
    params: Mapping[str, Any]
    """Searched key → its value."""
    value: float | None = None
    """Of the metric that is searched for."""
    better: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything that was measured."""
    seconds: float | None = None
    reason: str = ""
    """Why it failed or was stopped."""
    heldout: str = ""
    """sha256 of the held-out rows that it was measured on."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def cost(self) -> float:
        """The value with the sign that makes less better; infinite for a trial that has none."""
        if self.state != "finished" or self.value is None:
            return math.inf
        return self.value if self.better == "lower" else -self.value


def best(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The finished trial with the best value, the earliest of equal ones."""
    finished = [o for o in outcomes if o.state == "finished"]
    return min(finished, key=lambda o: (o.cost, o.number)) if finished else None


def overrides(params: Mapping[str, Any]) -> list[str]:
    """The values of a trial as `key=value` changes to its recipe."""
    return [f"{key}={_written(value)}" for key, value in params.items()]


def _written(value: Any) -> str:
    """One line of YAML that reads back as the value (as JSON, 1e-05 would be read back as a text)."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def distributions(space: Mapping[str, Values]) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms. Choices go by their labels, so that any value can be one."""
    with quiet():
        return {key: _distribution(values) for key, values in space.items()}


def _distribution(values: Values) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choices):
        return CategoricalDistribution(_labels(values))
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _labels(values: Choices) -> list[str]:
    return [json.dumps(choice, sort_keys=True) for choice in values.choices]


def decoded(space: Mapping[str, Values], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna drew as values of the recipe, in the order of the space."""
    return {key: json.loads(drawn[key]) if isinstance(v, Choices) else drawn[key] for key, v in space.items()}


def written(recipe: Recipe, space: Mapping[str, Values]) -> dict[str, Any] | None:
    """The recipe's own values in Optuna's terms; None where one of them lies outside of the space."""
    whole = recipe.model_dump(mode="json", by_alias=True)
    found = {key: _lookup(whole, key) for key in space}
    drawn = {
        key: json.dumps(found[key], sort_keys=True) if isinstance(v, Choices) else found[key]
        for key, v in space.items()
    }
    return drawn if all(_contains(values, drawn[key]) for key, values in space.items()) else None


def _lookup(data: Any, dotted: str) -> Any:
    for key in keys(dotted):
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _contains(values: Values, value: Any) -> bool:
    if isinstance(values, Choices):
        return value in _labels(values)
    if isinstance(value, bool) or not isinstance(value, int | float) or not values.low <= value <= values.high:
        return False
    if values.whole and not isinstance(value, int):
        return False
    steps = (value - values.low) / values.step if values.step else 0.0
    return abs(steps - round(steps)) < 1e-9


def sampler(tune: Tune, seed: int, drawn: int) -> BaseSampler:
    """What draws the next trial after so many. Each has its own seed, so that a resumed study draws the same."""
    from optuna.samplers import RandomSampler, TPESampler

    digest = hashlib.sha256(f"{seed}\0{drawn}".encode()).digest()
    number = int.from_bytes(digest[:4], "big")
    return TPESampler(seed=number) if tune.sampler == "tpe" else RandomSampler(seed=number)


def pruner(recipe: Recipe, tune: Tune) -> BasePruner:
    """What stops trials: at 1/9 and 1/3 of the steps, all but the best third of those that came so far."""
    from optuna.pruners import HyperbandPruner, NopPruner, SuccessiveHalvingPruner

    if tune.pruner == "none" or unprunable(recipe, tune):
        return NopPruner()
    steps = _steps(recipe)
    least = max(1, steps // FIRST_RUNG) if steps else None
    if tune.pruner == "hyperband":
        most = steps if steps else "auto"
        return HyperbandPruner(min_resource=least or 1, max_resource=most, reduction_factor=REDUCTION)
    return SuccessiveHalvingPruner(min_resource=least or "auto", reduction_factor=REDUCTION)


def _steps(recipe: Recipe) -> int | None:
    """Optimizer steps of all stages of the recipe; None where a stage counts in epochs."""
    stages = [stage for stage in (recipe.train, recipe.finetune) if stage is not None]
    return None if any(s.num_train_epochs is not None for s in stages) else sum(s.max_steps for s in stages)


def measures_heldout(recipe: Recipe) -> bool:
    """Whether every training stage measures its loss on held-out rows as it goes: then pruning looks at that."""
    return all(stage is None or stage.eval_steps is not None for stage in (recipe.train, recipe.finetune))


def unprunable(recipe: Recipe, tune: Tune) -> str:
    """Why the losses of two trials at the same step say nothing about which is better; empty where they do."""
    heldout = measures_heldout(recipe)
    same = _SAME_HELDOUT_LOSS if heldout else _SAME_TRAINING_LOSS
    others = [key for key in tune.space if ".".join(map(str, keys(key)[:2])) not in same]
    if not others:
        return ""
    which = "the loss on held-out rows" if heldout else "the training loss"
    hint = (
        ""
        if heldout or any(key not in _SAME_HELDOUT_LOSS for key in others)
        else "; set eval_steps to prune by that on held-out rows"
    )
    return f"{which} is not comparable between values of {', '.join(others)}{hint}"


def importance(study: Study, seed: int) -> dict[str, float]:
    """Share of the metric's variance that each key explains, largest first (fANOVA, Hutter et al. 2014).

    Empty with fewer than four finished trials, or where they do not differ.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < _ENOUGH or len({t.value for t in finished}) == 1:
        return {}
    with quiet():
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {key: float(share) for key, share in sorted(shares.items(), key=lambda item: (-item[1], item[0]))}


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna tells of every trial and of what it rounds; the trials are told by us."""
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
