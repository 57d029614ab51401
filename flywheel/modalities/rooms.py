"""The rooms by name. Each is imported only when it is asked for; a new modality adds one entry here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from flywheel.modalities.base import Modality
from flywheel.runtimes.base import Kind


@dataclass(frozen=True)
class Entry:
    """Where a room is, what serves its models, and the metrics that an objective may name."""

    module: str
    name: str
    kind: Kind
    """What its models answer with."""
    runtime: str
    """Module of the runtime that its manifest names."""
    metrics: tuple[str, ...]
    methods: tuple[str, ...] = ("sft", "pretrain", "dpo", "kto", "orpo", "grpo", "distill")
    """Methods of training that fit it."""
    columns: tuple[str, ...] = ("text", "completion", "messages", "chosen", "prompt")
    """A row must have one of them."""
    offers: tuple[str, ...] = ()
    """What its models can be asked as by further metrics: `speaker`, `painter`."""


ROOMS = {
    "text_causal": Entry(
        "flywheel.modalities.text_causal",
        "TextCausal",
        "text",
        "flywheel.runtimes.decoder",
        ("bits_per_byte", "answer_rouge_l", "answer_bleu"),
        offers=("speaker",),
    ),
    "code": Entry(
        "flywheel.modalities.code",
        "Code",
        "text",
        "flywheel.runtimes.decoder",
        ("bits_per_byte", "parse_rate", "docstring_rouge_l", "docstring_bleu"),
        offers=("speaker",),
    ),
    "text_masked": Entry(
        "flywheel.modalities.text_masked",
        "TextMasked",
        "text",
        "flywheel.runtimes.single_pass",
        ("masked_bits_per_token", "masked_accuracy"),
        ("pretrain",),
    ),
    "text_reward": Entry(
        "flywheel.modalities.text_reward",
        "TextReward",
        "text",
        "flywheel.runtimes.single_pass",
        ("preference_accuracy", "preference_bits"),
        ("reward",),
        ("chosen", "rejected"),
    ),
    "text_seq2seq": Entry(
        "flywheel.modalities.text_seq2seq",
        "TextSeq2Seq",
        "text",
        "flywheel.runtimes.seq2seq",
        ("span_bits_per_byte", "answer_bits_per_byte", "answer_rouge_l", "answer_bleu"),
        ("sft", "pretrain"),
    ),
    "image_diffusion": Entry(
        "flywheel.modalities.image_diffusion",
        "ImageDiffusion",
        "image",
        "flywheel.runtimes.diffusion",
        ("label_accuracy", "classifier_frechet_distance"),
        ("pretrain",),
        ("image",),
        offers=("painter",),
    ),
}


def room(modality: str) -> Modality:
    """The room of a modality; the recipe's schema admits only names that are here."""
    entry = ROOMS[modality]
    instance: Modality = getattr(import_module(entry.module), entry.name)()
    return instance
