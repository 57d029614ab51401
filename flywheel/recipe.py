"""THE schema of a recipe: what a user may write, in the ecosystem's own words.

The text under each field is the documentation: it becomes the JSON schema (`flywheel schema`) and the help of the form
in the Prefect UI. TrainingArguments names stand under `train`, LoraConfig names under `peft`, GenerationConfig names
under `evaluate.generation`, Great Expectations names under `data.validate`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from flywheel.errors import TrainingError
from flywheel.recipe_base import Operation, Section
from flywheel.recipe_features import Features
from flywheel.recipe_models import Model
from flywheel.recipe_sources import Source
from flywheel.recipe_train import Peft, Sft, Stage, Train
from flywheel.recipe_tune import Tune


class Split(Section):
    """How held-out rows are chosen. Rows of one group never stand on both sides."""

    heldout: float = Field(default=0.1, gt=0, lt=1)
    """Share of the groups that is held out for evaluation."""
    by: Literal["group", "label", "id"] = "group"
    """`group` keeps what belongs together (a module, a document) on one side; `label` holds out a share of each."""


def _with_arguments(written: Any) -> Any:
    return {written: {}} if isinstance(written, str) else written


Expectation = Annotated[
    dict[str, dict[str, JsonValue]],
    BeforeValidator(_with_arguments, json_schema_input_type=str | dict[str, dict[str, JsonValue]]),
]
"""A name alone stands for one without arguments."""


class Validate(Section):
    """Expectations on the prepared rows, checked with Great Expectations."""

    expectations: tuple[Expectation, ...] = ()
    """Great Expectations' own names: `- expect_column_values_to_be_unique: {column: digest}`."""
    on_failure: Literal["quarantine", "fail"] = "quarantine"
    """`quarantine` sets failing rows aside with the reason; `fail` stops the run at the first failing row."""
    max_quarantined: float = Field(default=0.05, ge=0, le=1)
    """The suite fails, and the run stops, when more than this share of rows would be set aside."""
    max_contamination: float | None = Field(default=None, ge=0, le=1)
    """The run stops when more than this share of the held-out rows share 13 words in a row with training rows, or are
    nearly the same as one. Empty: not looked at."""


class Data(Section):
    """Where rows come from and what happens to them before training."""

    sources: tuple[Source, ...] = Field(min_length=1)
    """One or more sources; their rows are read in this order."""
    process: tuple[Operation, ...] = ()
    """Ordered operations on rows, each with counted drop reasons."""
    split: Split = Split()
    """How held-out rows are chosen."""
    augment: tuple[Operation, ...] = ()
    """Operations that add varied copies of training rows, after the split."""
    validate_: Validate = Field(default=Validate(), alias="validate")
    """Expectations that prepared rows must meet."""


# ---------------------------------------------------------------- evaluation, gate, export, deployment


class Generation(Section):
    """How samples are drawn (names of transformers' GenerationConfig and of diffusers' pipelines)."""

    max_new_tokens: int = Field(default=96, ge=1)
    """Longest completion in tokens."""
    do_sample: bool = True
    """Draw at random; false takes the likeliest token."""
    temperature: float = Field(default=0.8, gt=0, le=5)
    """Below 1 sharpens the distribution, above 1 flattens it."""
    top_k: int = Field(default=50, ge=0)
    """Only the k likeliest tokens; 0 for all."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Only the likeliest tokens that together reach this probability."""
    num_inference_steps: int = Field(default=25, ge=1)
    """Denoising steps, for diffusion."""
    guidance_scale: float = Field(default=1.0, ge=1)
    """Weight of the condition, for diffusion; 1 is none."""


class Evaluate(Section):
    """What is measured on held-out rows."""

    num_samples: int = Field(default=64, ge=4)
    """Samples to draw for the metrics that need them."""
    generation: Generation = Generation()
    """How they are drawn."""
    baselines: tuple[Literal["ngram", "gaussian", "length"], ...] = ()
    """Simple models fitted to the same training rows, to be beaten: `ngram` for tokens, `gaussian` for pixels,
    `length` for preferences (the longer answer wins)."""
    metrics: tuple[Operation, ...] = ()
    """Further metrics beside the modality's own: `- chrf`, or `- pass_at_k: {problems: humaneval.jsonl}`."""


class Threshold(Section):
    """What a metric must reach."""

    min: float | None = None
    """The value must be at least this."""
    max: float | None = None
    """The value must be at most this."""
    beats: Literal["baseline", "before"] | None = None
    """The whole interval must be better than the baseline, or than the value before training."""


class Objective(Section):
    """What the model is for, as numbers: the gate promotes a version when every threshold holds."""

    metric: str
    """The metric that ranks versions, such as `bits_per_byte`."""
    thresholds: dict[str, Threshold] = {}
    """Metric name to what it must reach."""
    min_effect: float = Field(default=0.01, gt=0, le=1)
    """Smallest gain over the champion that is worth finding, as a share of its value: what sample sizes are told for,
    and the loss that any other metric may show."""
    reported: tuple[str, ...] = ()
    """Metrics that may be worse than the champion's: they are told and refuse nothing."""


class Optimize(Section):
    """What is exported and what an export must prove."""

    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
    """Precisions to try; the fastest that is proven is served."""
    max_logit_error: float = Field(default=1e-3, gt=0)
    """Largest absolute difference of an fp32 output from torch's."""
    max_quality_change: float = Field(default=0.02, gt=0)
    """Largest relative loss of the objective's metric for a quantised precision (0.02 is 2 %)."""
    compare_tokens: int = Field(default=128, ge=16)
    """Steps of greedy decoding that must agree token for token."""


class Deploy(Section):
    """How the champion is served and tried."""

    smoke_prompt: str = ""
    """A prompt whose answer proves that the server works. Empty: the modality's own."""


class Promote(Section):
    """How a version that the gate admits becomes the champion."""

    approval: bool = False
    """A person decides: the version waits as `@candidate` until it is approved, in the Prefect UI or by
    `flywheel promote`."""


class Resources(Section):
    """What works on the shards of data, and on which devices a model is trained."""

    runner: Literal["processes", "prefect", "dask", "ray"] = "processes"
    """`processes` on this machine; `prefect` maps tasks over shards; `dask` and `ray` by Prefect's task runners."""
    workers: int | None = Field(default=None, ge=1)
    """Shards at a time. Empty: one for each core."""
    address: str | None = None
    """A running Dask or Ray cluster. Empty: a local one for the time of the step."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """What trains: `auto` takes GPUs where there are any; `cuda` refuses a machine without."""
    accelerators: int = Field(default=1, ge=1)
    """Devices on each machine that train together, a process on each; batches add up over them."""
    num_nodes: int = Field(default=1, ge=1)
    """Machines that train together; they share the directory of the store."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp` holds the whole model on each device; `fsdp` shares weights, gradients and optimizer out among them."""
    work_pool: str | None = None
    """Prefect work pool whose workers train, such as `gpu`. Empty: training runs where the lifecycle runs."""


class Recipe(Section):
    """One file that drives the whole life of a generative model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Name of the registered model: lower-case letters, digits and dashes."""
    objective: Objective
    """What the model must reach to be promoted."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything that is drawn at random."""
    data: Data
    """Where rows come from and what happens to them."""
    features: Features | None = None
    """Vectors of the rows, for selection, drift, retrieval and classical baselines. Empty: none are made."""
    model: Model
    """The modality and its architecture or checkpoint."""
    train: Stage = Sft()
    """The first training stage."""
    finetune: Stage | None = None
    """An optional second stage."""
    peft: Peft | None = None
    """A LoRA adapter for the last stage."""
    tune: Tune | None = None
    """A search over keys of this recipe, by `flywheel tune`. Empty: none."""
    evaluate: Evaluate = Evaluate()
    """What is measured on held-out rows."""
    optimize: Optimize = Optimize()
    """What is exported and what it must prove."""
    promote: Promote = Promote()
    """How a version that the gate admits becomes the champion."""
    deploy: Deploy = Deploy()
    """How the champion is served and tried."""
    resources: Resources = Resources()
    """What works on the shards of data."""


def stage_of(recipe: Recipe, name: str) -> Train:
    """The section of the training stage `train` or `finetune`. Raises TrainingError where the recipe has none."""
    config = recipe.finetune if name == "finetune" else recipe.train
    if config is None:
        raise TrainingError("finetune", found="no such section in the recipe", remedy="add one, or leave the stage out")
    return config


def section(recipe: Recipe, dotted: str) -> Any:
    """The resolved value at a dotted key as plain JSON: `section(recipe, "data.sources")`."""
    value: Any = recipe.model_dump(mode="json", by_alias=True)
    for key in dotted.split("."):
        value = value[key]
    return value
