"""THE schema of a recipe: what a user may write, in the ecosystem's own words.

The text under each field is the documentation: it becomes the JSON schema (`flywheel schema`) and the help of the form
in the Prefect UI. TrainingArguments names stand under `train`, LoraConfig names under `peft`, GenerationConfig names
under `evaluate.generation`, Great Expectations names under `data.validate`.
"""

from __future__ import annotations

from os.path import expanduser
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from flywheel.recipe_base import Operation, Section
from flywheel.recipe_features import Features
from flywheel.recipe_sources import Source

Checkpoint = Annotated[str, AfterValidator(expanduser)]
"""A directory, `~` allowed, or a hub id."""


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


# ---------------------------------------------------------------- model


class Tokenizer(Section):
    """A byte-level BPE tokenizer trained on the training rows."""

    vocab_size: int = Field(default=4096, ge=300, le=262_144)
    """Number of tokens, special tokens included."""


class DecoderModel(Section):
    """Shared by the decoder-only rooms: an existing checkpoint, or a small architecture from scratch."""

    path: Checkpoint | None = None
    """A local checkpoint directory or hub id. Empty: train from scratch with the sizes below."""
    tokenizer: Tokenizer = Tokenizer()
    """The tokenizer that is trained when there is no checkpoint."""
    model_type: Literal["llama", "qwen3"] = "llama"
    """Architecture from scratch; `qwen3` is Llama with normalised queries and keys, which bears larger steps."""
    hidden_size: int = Field(default=256, ge=16, multiple_of=8)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=768, ge=16)
    """Width of the feed-forward layer."""
    num_hidden_layers: int = Field(default=6, ge=1)
    """Number of transformer blocks."""
    num_attention_heads: int = Field(default=4, ge=1)
    """Number of query heads; `hidden_size` is divided among them."""
    num_key_value_heads: int = Field(default=4, ge=1)
    """Number of key/value heads (grouped-query attention)."""
    max_position_embeddings: int = Field(default=512, ge=16)
    """Longest context in tokens."""
    tie_word_embeddings: bool = True
    """Share the input and output embedding."""

    @model_validator(mode="after")
    def heads_divide(self) -> DecoderModel:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("hidden_size must divide by num_attention_heads, and that by num_key_value_heads")
        if not self.path and self.hidden_size // self.num_attention_heads % 16:
            raise ValueError("hidden_size / num_attention_heads must be a multiple of 16, or onnxruntime cannot run it")
        return self


class TextCausalModel(DecoderModel):
    """Text, one token after the other."""

    modality: Literal["text_causal"]


class CodeModel(DecoderModel):
    """Source code, one token after the other; scored by whether it parses."""

    modality: Literal["code"]


class ImageDiffusionModel(Section):
    """Class-conditional denoising diffusion on small pictures (a diffusers UNet2DModel)."""

    modality: Literal["image_diffusion"]
    path: Checkpoint | None = None
    """A local diffusers pipeline directory. Empty: train from scratch with the sizes below."""
    sample_size: int = Field(default=8, ge=8, multiple_of=8)
    """Height and width of the pictures in pixels."""
    in_channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""
    block_out_channels: tuple[int, ...] = (32, 64)
    """Channels of each resolution, highest resolution first."""
    layers_per_block: int = Field(default=1, ge=1)
    """Residual blocks at each resolution."""
    num_train_timesteps: int = Field(default=1000, ge=10)
    """Steps of the noise schedule."""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    """Shape of the noise over these steps."""
    class_dropout_prob: float = Field(default=0.0, ge=0, lt=1)
    """Share of training pictures shown without their label. Guidance needs it; 0.1 is usual."""

    @model_validator(mode="after")
    def size_halves(self) -> ImageDiffusionModel:
        if self.sample_size % 2 ** (len(self.block_out_channels) - 1):
            raise ValueError("sample_size must halve once for each of block_out_channels but the first")
        return self


Model = Annotated[TextCausalModel | CodeModel | ImageDiffusionModel, Field(discriminator="modality")]


# ---------------------------------------------------------------- training


class Peft(Section):
    """A LoRA adapter (names of peft's LoraConfig) for the last training stage; merged into the weights at its end."""

    r: int = Field(default=8, ge=1)
    """Rank of the update."""
    lora_alpha: float = Field(default=16, gt=0)
    """Scale of the update, divided by `r`."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers to adapt, or `all-linear`."""


class Train(Section):
    """One training stage (names of transformers' TrainingArguments)."""

    max_steps: int = Field(default=500, ge=1)
    """Number of optimizer steps."""
    per_device_train_batch_size: int = Field(default=16, ge=1)
    """Rows of a batch on each device."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches added up before each optimizer step."""
    max_length: int = Field(default=256, ge=8)
    """Length of a packed row in tokens; ignored by modalities without tokens."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Peak learning rate."""
    lr_scheduler_type: Literal["constant", "linear", "cosine", "warmup_stable_decay", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate over the steps."""
    lr_scheduler_kwargs: dict[str, JsonValue] = {}
    """Further arguments of the schedule."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises from zero."""
    optim: Literal["adamw", "muon"] = "adamw"
    """`adamw` (fused), or `muon` for the matrices with `adamw` for the rest."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay on matrices."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    bf16: bool = True
    """Compute in bfloat16 where the device supports it."""
    torch_compile: bool = True
    """Compile the model's step; costs about 20 seconds once, kept in a cache."""
    logging_steps: int = Field(default=20, ge=1)
    """Steps between two points of the loss curve."""
    save_steps: int = Field(default=200, ge=1)
    """Steps between two checkpoints: what a crash may cost."""


class Finetune(Train):
    """A second stage that starts from the weights of `train`, on rows made by `process`."""

    process: tuple[Operation, ...] = ()
    """Operations that make this stage's rows from the prepared rows, such as `docstring_pairs`."""
    replay: float = Field(default=0.0, ge=0, lt=1)
    """Share of this stage's batches taken from the first stage's rows, against forgetting."""


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
    baselines: tuple[Literal["ngram", "gaussian"], ...] = ()
    """Simple models fitted to the same training rows, to be beaten: `ngram` for tokens, `gaussian` for pixels."""


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


class Resources(Section):
    """What works on the shards of data. It changes how fast rows are prepared, never which."""

    runner: Literal["processes", "prefect", "dask", "ray"] = "processes"
    """`processes` on this machine; `prefect` maps tasks over shards; `dask` and `ray` by Prefect's task runners."""
    workers: int | None = Field(default=None, ge=1)
    """Shards at a time. Empty: one for each core."""
    address: str | None = None
    """A running Dask or Ray cluster. Empty: a local one for the time of the step."""


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
    train: Train = Train()
    """The first training stage."""
    finetune: Finetune | None = None
    """An optional second stage."""
    peft: Peft | None = None
    """A LoRA adapter for the last stage."""
    evaluate: Evaluate = Evaluate()
    """What is measured on held-out rows."""
    optimize: Optimize = Optimize()
    """What is exported and what it must prove."""
    deploy: Deploy = Deploy()
    """How the champion is served and tried."""
    resources: Resources = Resources()
    """What works on the shards of data."""


def section(recipe: Recipe, dotted: str) -> Any:
    """The resolved value at a dotted key as plain JSON: `section(recipe, "data.sources")`."""
    value: Any = recipe.model_dump(mode="json", by_alias=True)
    for key in dotted.split("."):
        value = value[key]
    return value
