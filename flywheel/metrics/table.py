"""The metrics that a recipe may name under `evaluate.metrics`. Each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from flywheel.metrics.metric import Metric

Needs = Literal["speaker", "painter"]


@dataclass(frozen=True)
class Entry:
    """Where a metric is: the function of its own name in a module."""

    module: str
    gives: tuple[str, ...]
    """Names of what it measures, as shell patterns: `pass_at_*`."""
    needs: Needs = "speaker"

    def function(self, name: str) -> Callable[..., list[Metric]]:
        found: Callable[..., list[Metric]] = getattr(import_module(self.module), name)
        return found


METRICS: dict[str, Entry] = {
    "answer_length": Entry("flywheel.metrics.answers", ("answer_words", "answer_characters", "answer_length_ratio")),
    "bleu": Entry("flywheel.metrics.overlap", ("bleu",)),
    "chrf": Entry("flywheel.metrics.overlap", ("chrf", "chrf_plus", "chrf_plus_plus")),
    "distinct": Entry("flywheel.metrics.answers", ("distinct_*",)),
    "embedding_similarity": Entry("flywheel.metrics.similarity", ("embedding_similarity",)),
    "exact_match": Entry("flywheel.metrics.answers", ("exact_match",)),
    "labels": Entry("flywheel.metrics.labels", ("accuracy", "macro_precision", "macro_recall", "macro_f1")),
    "multiple_choice": Entry(
        "flywheel.metrics.choice",
        ("acc", "acc_norm", "acc_bytes", "ece", "*_acc", "*_acc_norm", "*_acc_bytes", "*_ece"),
    ),
    "perplexity": Entry("flywheel.metrics.perplexity", ("word_perplexity", "token_perplexity", "text_bits_per_byte")),
    "readability": Entry("flywheel.metrics.answers", ("flesch_reading_ease", "flesch_kincaid_grade")),
    "repetition": Entry("flywheel.metrics.answers", ("repetition_*",)),
    "rouge": Entry("flywheel.metrics.overlap", ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum")),
    "token_f1": Entry("flywheel.metrics.answers", ("token_f1",)),
    "judge": Entry("flywheel.metrics.judges", ("judge_win_rate",)),
    "frechet_distance": Entry("flywheel.metrics.pictures", ("frechet_distance",), "painter"),
    "kernel_distance": Entry("flywheel.metrics.pictures", ("kernel_distance", "classifier_kernel_distance"), "painter"),
    "precision_recall": Entry(
        "flywheel.metrics.pictures",
        (
            *("precision", "recall", "density", "coverage"),
            *("classifier_precision", "classifier_recall", "classifier_density", "classifier_coverage"),
        ),
        "painter",
    ),
    "classifier_score": Entry("flywheel.metrics.pictures", ("classifier_score",), "painter"),
    "clip_score": Entry("flywheel.metrics.pictures", ("clip_score",), "painter"),
    "memorisation": Entry("flywheel.metrics.pictures", ("memorised_share",), "painter"),
    "slices": Entry("flywheel.metrics.fairness", ("slice_gap_*",)),
    "counterfactual": Entry("flywheel.metrics.fairness", ("counterfactual_gap",)),
    "toxicity": Entry("flywheel.metrics.safety", ("toxic_share", "toxic_share_classifier")),
    "refusals": Entry("flywheel.metrics.safety", ("injection_resistance", "refusal_rate")),
    "pii_leakage": Entry("flywheel.metrics.leakage", ("leaked_pii_share",)),
    "canary_exposure": Entry("flywheel.metrics.leakage", ("canary_exposure", "canary_exposure_mean")),
    "memorised_text": Entry("flywheel.metrics.leakage", ("memorised_share",)),
    "triggers": Entry("flywheel.metrics.poisoning", ("trigger_effect",)),
    "pass_at_k": Entry("flywheel.metrics.programs", ("pass_at_*", "compile_rate")),
}
