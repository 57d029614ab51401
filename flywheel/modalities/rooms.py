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


ROOMS = {
    "text_causal": Entry(
        "flywheel.modalities.text_causal",
        "TextCausal",
        "text",
        "flywheel.runtimes.decoder",
        ("bits_per_byte", "answer_rouge_l", "answer_bleu"),
    ),
    "code": Entry(
        "flywheel.modalities.code",
        "Code",
        "text",
        "flywheel.runtimes.decoder",
        ("bits_per_byte", "parse_rate", "docstring_rouge_l", "docstring_bleu"),
    ),
    "image_diffusion": Entry(
        "flywheel.modalities.image_diffusion",
        "ImageDiffusion",
        "image",
        "flywheel.runtimes.diffusion",
        ("label_accuracy", "classifier_frechet_distance"),
    ),
}


def room(modality: str) -> Modality:
    """The room of a modality; the recipe's schema admits only names that are here."""
    entry = ROOMS[modality]
    instance: Modality = getattr(import_module(entry.module), entry.name)()
    return instance
