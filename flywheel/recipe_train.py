"""Training as a recipe names it: one section for each method, in the words of TrainingArguments, LoraConfig and TRL."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from flywheel.recipe_base import Operation, Section
from flywheel.recipe_models import Checkpoint

Argument = str | dict[str, dict[str, JsonValue]]
"""A name alone, or `name: {argument: value}`."""


class Peft(Section):
    """A LoRA adapter (names of peft's LoraConfig) for the last training stage; merged into the weights at its end."""

    path: Checkpoint | None = None
    """An adapter to start from (a directory in peft's layout, or a hub id), made for this very model. Empty: a new
    one."""
    r: int = Field(default=8, ge=1)
    """Rank of the update."""
    lora_alpha: float = Field(default=16, gt=0)
    """Scale of the update, divided by `r`."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers to adapt, or `all-linear`."""
    use_dora: bool = False
    """DoRA: learn the length of each weight's columns apart from their direction."""
    load_in_4bit: bool = False
    """QLoRA: hold the frozen weights in four bits (NF4); needs the extra `qlora`."""


class Train(Section):
    """What every training stage has (names of transformers' TrainingArguments)."""

    process: tuple[Operation, ...] = ()
    """Of `finetune` alone: operations that make this stage's rows from the prepared rows, such as `docstring_pairs`."""
    max_steps: int = Field(default=500, ge=1)
    """Number of optimizer steps."""
    num_train_epochs: float | None = Field(default=None, gt=0)
    """Passes over the rows, instead of `max_steps`."""
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
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """The result is a moving average of the weights, which keeps this share of itself at each step. Empty: none."""
    bf16: bool = True
    """Compute in bfloat16 where the device supports it."""
    torch_compile: bool = True
    """Compile the model's step; costs about 20 seconds once, kept in a cache. Not of methods whose batches have many
    shapes: `dpo`, `kto`, `orpo` and `grpo`."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: about a quarter slower, far less
    memory."""
    dataloader_num_workers: int = Field(default=0, ge=0)
    """Processes that collate batches ahead; the order of the rows does not depend on it."""
    logging_steps: int = Field(default=20, ge=1)
    """Steps between two points of the loss curve."""
    save_steps: int = Field(default=200, ge=1)
    """Steps between two checkpoints: what a crash may cost."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between two measurements of the loss on held-out rows. Empty: none."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after so many measurements without a better loss; needs `eval_steps`."""
    load_best_model_at_end: bool = False
    """The result is the checkpoint of the best measured loss, not the last one; needs `eval_steps`."""
    max_loss_spike: float | None = Field(default=None, gt=1)
    """A loss of more than so many times the median of the last 64 steps goes back to the last checkpoint, and that
    step's rows are skipped, which is recorded. A loss that is no number always does. Empty: only that."""
    hang_seconds: int = Field(default=1800, ge=10)
    """A step that takes longer is taken for hung: training is ended and continues from its last checkpoint."""

    @model_validator(mode="after")
    def evaluations_happen(self) -> Train:
        if self.eval_steps is None and (self.early_stopping_patience or self.load_best_model_at_end):
            raise ValueError("early_stopping_patience and load_best_model_at_end need eval_steps")
        return self


class Sft(Train):
    """Learning rows as they are: pre-training, further pre-training, and supervised fine-tuning."""

    method: Literal["pretrain", "sft"] | None = None
    """`pretrain` learns every token of every row; `sft` only answers: completions and the assistant's turns. Empty:
    documents whole, and of pairs and conversations the answers."""
    auto: bool = False
    """Choose `bf16`, `torch_compile`, `gradient_checkpointing`, the attention and how a batch is cut into pieces by a
    short measurement on this machine. What one optimizer step learns from stays the same."""
    replay: float = Field(default=0.0, ge=0, lt=1)
    """Of `finetune` alone: share of the batches taken from the first stage's rows, against forgetting."""
    max_loss_spike: float | None = Field(default=3.0, gt=1)
    """A loss of more than so many times the median of the last 64 steps goes back to the last checkpoint, and that
    step's rows are skipped, which is recorded. A loss that is no number always does. Empty: only that."""


class Dpo(Train):
    """Direct preference optimization (Rafailov et al. 2023) on `chosen` and `rejected` (names of TRL's DPOConfig)."""

    method: Literal["dpo"]
    """Direct preference optimization."""
    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Peak learning rate."""
    beta: float = Field(default=0.1, gt=0)
    """How strongly the model is held to what it was before."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    """Shape of the loss."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of preferences that are taken to be wrong."""


class Kto(Train):
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024) on answers with a `label` of true or false (KTOConfig)."""

    method: Literal["kto"]
    """Kahneman-Tversky optimization."""
    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Peak learning rate."""
    beta: float = Field(default=0.1, gt=0)
    """How strongly the model is held to what it was before."""
    desirable_weight: float = Field(default=1.0, ge=0)
    """Weight of good answers."""
    undesirable_weight: float = Field(default=1.0, ge=0)
    """Weight of bad answers."""


class Orpo(Train):
    """Odds-ratio preference optimization (Hong et al. 2024): no reference model (names of TRL's ORPOConfig)."""

    method: Literal["orpo"]
    """Odds-ratio preference optimization."""
    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Peak learning rate."""
    beta: float = Field(default=0.1, gt=0)
    """Weight of the preference against the plain likelihood of the chosen answer."""


class Reward(Train):
    """A reward model (Bradley-Terry) on `chosen` and `rejected`, for the modality `text_reward`."""

    method: Literal["reward"]
    """A reward model."""
    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Peak learning rate."""
    center_rewards_coefficient: float | None = Field(default=None, gt=0)
    """Holds the mean reward of a pair at zero (Eisenstein et al. 2023). Empty: not held."""


class Grpo(Train):
    """Group relative policy optimization (Shao et al. 2024) on prompts, with rewards (names of TRL's GRPOConfig)."""

    method: Literal["grpo"]
    """Group relative policy optimization."""
    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Peak learning rate."""
    reward_funcs: tuple[Argument, ...] = Field(min_length=1)
    """What is rewarded: names such as `exact_match`, `regex_match: {pattern: ...}`, `python: {file: rewards.py,
    function: brevity}`, or `model: {path: ...}` for a reward model."""
    reward_weights: tuple[float, ...] | None = None
    """Weight of each. Empty: 1."""
    num_generations: int = Field(default=8, ge=2)
    """Answers drawn for each prompt and compared with each other."""
    max_completion_length: int = Field(default=128, ge=1)
    """Longest answer in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Of drawing the answers."""
    beta: float = Field(default=0.0, ge=0)
    """How strongly the model is held to what it was before."""


class Distill(Train):
    """Learning from a teacher (Hinton et al. 2015; Kim and Rush 2016)."""

    method: Literal["distill"]
    """Learning from a teacher."""
    teacher: Checkpoint
    """A registered model as `NAME@alias` or `NAME/version`, a checkpoint directory, or a hub id."""
    level: Literal["logits", "sequence"] = "logits"
    """`logits` matches the teacher's distribution at every token (same tokenizer); `sequence` learns its answers."""
    temperature: float = Field(default=1.0, gt=0)
    """Of both distributions (`logits`), or of drawing the answers (`sequence`; below 0.01 is greedy)."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the teacher in the loss; the rest are the rows' own tokens. Of `logits` alone."""


def _method(value: Any) -> str:
    named = value.get("method") if isinstance(value, dict) else getattr(value, "method", None)
    return "sft" if named in (None, "pretrain") else str(named)


Stage = Annotated[
    Annotated[Sft, Tag("sft")]
    | Annotated[Dpo, Tag("dpo")]
    | Annotated[Kto, Tag("kto")]
    | Annotated[Orpo, Tag("orpo")]
    | Annotated[Reward, Tag("reward")]
    | Annotated[Grpo, Tag("grpo")]
    | Annotated[Distill, Tag("distill")],
    Discriminator(_method),
]
"""One training stage; without `method` it learns rows as they are."""
