"""Perplexity, multiple choice and embeddings with real, tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flywheel.comparison import compare
from flywheel.errors import RecipeError
from flywheel.metrics.answers import token_f1
from flywheel.metrics.base import Exam, Likelihood
from flywheel.metrics.choice import multiple_choice
from flywheel.metrics.overlap import chrf
from flywheel.metrics.perplexity import perplexities, perplexity
from flywheel.metrics.similarity import embedding_similarity
from flywheel.metrics.text import Documents, bits_per_byte
from flywheel.modalities.base import Model
from flywheel.modalities.decoder_model import started, tokenise
from flywheel.modalities.text_causal import TextCausal
from flywheel.recipe import Recipe
from flywheel.record import Record
from tests.flywheel.metrics.scripted import exam, exam_of, pairs

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Größe, naïveté and ☃: a fox.", "   ", "One\ntwo three."]
ROWS = [Record(str(i), text=text) for i, text in enumerate(TEXTS)]
room = TextCausal()


@pytest.fixture(scope="module")
def model() -> Model:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": "text_causal", "tokenizer": {"vocab_size": 320}, **sizes, **heads},
        }
    )
    model = room.build(recipe, ROWS)
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)  # fresh weights find everything equally likely
    return model


def asked(model: Model, rows: list[Record]) -> Exam:
    return exam(rows, room.speaker(model, room.predictor(model)))


def nats(model: Model, text: str) -> tuple[float, int]:
    """Log-probability of all tokens of a text by its logits, and their number."""
    ids = started(model, tokenise(model, [text])[0])
    logits: Any = torch.from_numpy(room.predictor(model).forward(ids))
    scores = logits[:-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    return float(scores.sum()), len(scores)


def test_perplexities_are_those_of_the_logits(model: Model) -> None:
    word, token, bits = perplexity(asked(model, [*ROWS, *pairs(["not a document"])]))
    counted = [nats(model, text) for text in TEXTS if text.strip()]
    total = -sum(n for n, _ in counted)
    assert word.value == pytest.approx(np.exp(total / 18), rel=1e-2)  # 9, 6 and 3 words
    assert token.value == pytest.approx(np.exp(total / sum(t for _, t in counted)), rel=1e-3)
    assert bits.value == pytest.approx(total / np.log(2) / sum(len(t.encode()) for t in TEXTS if t.strip()), rel=1e-3)
    assert [m.detail["depends_on_tokenizer"] for m in (word, token, bits)] == [False, True, False]


def test_token_perplexity_is_that_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.text")
    logits = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(21).reshape(3, 7) % 11
    scores = logits.double().log_softmax(-1).gather(-1, ids[..., None])[..., 0].sum(-1)
    metric = perplexities(["a"] * 3, [Likelihood(float(n), 7) for n in scores], seed=0)[1]
    assert metric.value == pytest.approx(float(functional.perplexity(logits, ids)), rel=1e-6)


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    texts = ["a b", "c d e"]
    word, token, bits = perplexities(texts, [Likelihood(-3 * np.log(16), 3), Likelihood(-5 * np.log(16), 5)], seed=0)
    assert (token.value, token.low, token.high) == pytest.approx((16, 16, 16))
    assert word.value == pytest.approx(16 ** (8 / 5))
    assert bits.value == pytest.approx(4)


def test_a_document_beyond_the_context_counts_whole(model: Model) -> None:
    rows = [Record("long", text=" ".join(TEXTS * 12)), *ROWS[:2]]
    predictor, context = room.predictor(model), 128
    texts = [row.text or "" for row in rows]
    ids = [started(model, ids) for ids in tokenise(model, texts)]
    own = bits_per_byte(predictor, Documents(ids, [len(text.encode()) for text in texts]), context, seed=0)
    assert len(ids[0]) > 2 * context
    assert perplexity(asked(model, rows))[2].value == pytest.approx(own.value, rel=1e-4)


def test_perplexities_of_two_models_are_compared() -> None:
    texts = ["a b"] * 30
    better, worse = (perplexities(texts, [Likelihood(-cost, 2)] * 30, seed=0) for cost in (3.0, 4.0))
    for one, other in zip(better, worse, strict=True):
        if one.name == "token_perplexity":  # the other model may have another tokenizer
            assert one.scores is None
            continue
        assert one.scores is not None
        assert other.scores is not None
        found = compare(one.name, "lower", (one.scores, other.scores), 0.01, seed=0)
        assert found.gain == pytest.approx(other.value - one.value)
        assert found.p_better < 0.001


def test_perplexity_needs_documents(model: Model) -> None:
    with pytest.raises(RecipeError, match="perplexity"):
        perplexity(asked(model, pairs(["a pair"])))


def test_choices_are_scored_by_a_real_model(model: Model, tmp_path: Path) -> None:
    questions = [{"query": "The quick brown", "choices": ["fox", "dog", "lazy bird"], "gold": g} for g in (0, 1, 2)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, questions)))
    acc, norm, *_ = multiple_choice(asked(model, []), questions=str(tmp_path / "q.jsonl"))
    assert acc.value == pytest.approx(1 / 3)  # one and the same choice each time, once the right one
    assert norm.value == pytest.approx(1 / 3)
    whole = [nats(model, f"The quick brown {choice}")[0] for choice in questions[0]["choices"]]
    scores = acc.scores
    assert scores is not None
    assert scores.parts[:, 0].argmax() == int(np.argmax(whole))


def test_greedy_answers_of_a_real_model(model: Model) -> None:
    rows = pairs(["The fox.", "A dog.", "One two."])
    speaker = room.speaker(model, room.predictor(model))
    given = speaker.answer(rows, exam(rows, speaker).greedy)
    expected = chrf(exam_of(given, ["The fox.", "A dog.", "One two."]))
    assert chrf(exam(rows, speaker))[0].value == expected[0].value
    assert (
        token_f1(exam(rows, speaker))[0].value == token_f1(exam_of(given, ["The fox.", "A dog.", "One two."]))[0].value
    )


def test_similarity_is_the_cosine_of_mean_hidden_states(model: Model, tmp_path: Path) -> None:
    room.save(model, tmp_path / "encoder")
    answers, references = ["The fox.", "", "A dog."], ["The fox.", "a dog", "One two three."]
    (metric,) = embedding_similarity(exam_of(answers, references), model=str(tmp_path / "encoder"))
    assert metric.scores is not None
    values = metric.scores.parts[:, 0]
    assert values[0] == pytest.approx(1, abs=1e-5)
    assert values[1] == 0
    base: Any = model.module.cpu().eval().base_model  # type: ignore[operator]
    with torch.inference_mode():
        one, other = (
            base(torch.from_numpy(tokenise(model, [text])[0][None])).last_hidden_state[0].mean(0)
            for text in ("A dog.", "One two three.")
        )
    expected = torch.nn.functional.cosine_similarity(one, other, dim=0)
    assert values[2] == pytest.approx(float(expected), abs=1e-4)
    assert metric.detail["model"] == str(tmp_path / "encoder")


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"embedding_similarity\.model"):
        embedding_similarity(exam_of(["a"], ["b"]), model=str(tmp_path / "nowhere"))
