"""Finding pictures by texts and texts by pictures, and captions against references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flywheel.metrics.pairs import caption_metrics, cider_d, recall_at_k

CAPTIONS = ["a cat sits on the mat", "two dogs run in the park", "a red car", "a man rides a horse on the beach"]
REFERENCES = [
    ["a cat is sitting on a mat", "the cat sits on the mat"],
    ["two dogs are running through the park", "dogs play in a park", "two brown dogs run in the grass"],
    ["a red sports car parked on the street"],
    ["a man riding a horse along the beach", "a person rides a brown horse on a beach"],
]


def found(metrics: list[Any]) -> dict[str, float]:
    for metric in metrics:
        assert metric.low <= metric.value <= metric.high
        assert metric.scores is not None
    return {metric.name: metric.value for metric in metrics}


def test_recall_by_hand() -> None:
    images = np.eye(3)
    texts = np.array([[1.0, 0.1, 0], [0, 0.4, 0.5], [0.3, 0.2, 1]])
    values = found(recall_at_k(images, texts, ks=(1, 2)))
    assert values == {
        "image_to_text_recall_at_1": 1.0,
        "image_to_text_recall_at_2": 1.0,
        "text_to_image_recall_at_1": pytest.approx(2 / 3),
        "text_to_image_recall_at_2": 1.0,
    }


def test_recall_is_the_hit_rate_of_torchmetrics() -> None:
    retrieval = pytest.importorskip("torchmetrics.functional.retrieval")
    import torch

    rng = np.random.default_rng(0)
    images = rng.standard_normal((20, 8))
    owners = np.repeat(np.arange(20), 3)
    texts = images[owners] + 1.5 * rng.standard_normal((60, 8))
    alike = (images / np.linalg.norm(images, axis=1)[:, None]) @ (texts / np.linalg.norm(texts, axis=1)[:, None]).T
    values = found(recall_at_k(images, texts, owners.tolist(), ks=(1, 5)))
    right = torch.from_numpy(owners[None] == np.arange(20)[:, None])
    for k in (1, 5):
        for way, scores, hits in (
            ("image_to_text", torch.from_numpy(alike), right),
            ("text_to_image", torch.from_numpy(alike.T), right.T),
        ):
            rates = [float(retrieval.retrieval_hit_rate(s, h, k)) for s, h in zip(scores, hits, strict=True)]
            assert values[f"{way}_recall_at_{k}"] == pytest.approx(np.mean(rates), abs=1e-9)
    assert 0 < values["text_to_image_recall_at_1"] < 1


def test_equal_embeddings_find_nothing() -> None:
    values = found(recall_at_k(np.ones((4, 3)), np.ones((4, 3)), ks=(1, 3)))
    assert set(values.values()) == {0.0}


def test_owners_must_fit() -> None:
    with pytest.raises(ValueError, match="each of 3 images"):
        recall_at_k(np.eye(3), np.eye(3), [0, 1, 1])


def test_captions_that_equal_a_reference_are_best() -> None:
    best = found(caption_metrics([several[0] for several in REFERENCES], REFERENCES))
    usual = found(caption_metrics(CAPTIONS, REFERENCES))
    assert best["caption_bleu_4"] == pytest.approx(100)
    assert best["caption_rouge_l"] == 1
    for name, value in usual.items():
        assert 0 < value < best[name]


def test_bleu_and_rouge_are_those_of_the_libraries() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    values = found(caption_metrics(CAPTIONS, REFERENCES))
    streams = [[several[i] if i < len(several) else None for several in REFERENCES] for i in range(3)]
    assert values["caption_bleu_4"] == pytest.approx(BLEU(lowercase=True).corpus_score(CAPTIONS, streams).score)
    scorer = RougeScorer(["rougeL"])
    pairs = zip(CAPTIONS, REFERENCES, strict=True)
    each = [max(scorer.score(r, caption)["rougeL"].fmeasure for r in several) for caption, several in pairs]
    assert values["caption_rouge_l"] == pytest.approx(np.mean(each))


def test_cider_d_is_that_of_pycocoevalcap() -> None:
    """Figures of pycocoevalcap 1.2, whose `cider` is CIDEr-D, for these words without its Java tokenizer."""
    expected = [4.95573481, 2.99808826, 1.6122041, 2.66769326]
    np.testing.assert_allclose(cider_d(CAPTIONS, REFERENCES), expected, atol=5e-9)
    assert found(caption_metrics(CAPTIONS, REFERENCES))["caption_cider_d"] == pytest.approx(3.0584301070748876)
