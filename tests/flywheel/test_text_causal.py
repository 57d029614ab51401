from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.errors import RecipeError
from flywheel.modalities.base import Model
from flywheel.modalities.code import Code
from flywheel.modalities.decoder_model import decode, tokenise
from flywheel.modalities.text_causal import TextCausal
from flywheel.modalities.token_rows import IGNORED, shorten
from flywheel.recipe import Recipe
from flywheel.record import Record
from flywheel.runtimes.base import Sampling

TEXTS = [f"Row {i}: " + "the quick brown fox jumps over the lazy dog. " * (1 + 3 * i) for i in range(5)]
ROWS = [Record(str(i), text=text) for i, text in enumerate(TEXTS)]
PAIRS = [Record(f"p{i}", prompt=f"What is {i}?" * (1 + 9 * i), completion=f"It is {i}.") for i in range(4)]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def recipe(**model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": "text_causal", "tokenizer": {"vocab_size": 320}, **SIZES, **model},
        }
    )


@pytest.fixture(scope="module")
def room() -> TextCausal:
    return TextCausal()


@pytest.fixture(scope="module")
def model(room: TextCausal) -> Model:
    return room.build(recipe(), ROWS)


@settings(max_examples=50)
@given(text=st.text())
def test_any_text_survives_the_tokenizer(model: Model, text: str) -> None:
    (ids,) = tokenise(model, [text])
    assert decode(model, ids) == text


def test_text_that_looks_like_a_special_token_is_text(model: Model) -> None:
    (ids,) = tokenise(model, ["<|endoftext|><|answer|>"])
    assert ids.min() > 1
    assert decode(model, ids) == "<|endoftext|><|answer|>"


def test_every_token_of_a_document_is_learned_once(room: TextCausal, model: Model) -> None:
    rows = list(room.encode(model, ROWS, 32))  # type: ignore[call-overload]
    labels = torch.cat([row["labels"] for row in rows])
    learned = sorted(labels[labels != IGNORED].tolist())
    expected = sorted(t for ids in tokenise(model, TEXTS) for t in [*ids.tolist(), model.processor.eos_token_id])
    assert learned == expected


def test_only_the_completion_of_a_pair_is_learned(room: TextCausal, model: Model) -> None:
    labels = torch.cat([row["labels"] for row in room.encode(model, PAIRS, 48)])  # type: ignore[attr-defined]
    ends = sorted(decode(model, labels[labels != IGNORED].tolist()).split("It is ")[1:])
    assert ends == ["0.", "1.", "2.", "3."]
    assert (labels == model.processor.eos_token_id).sum() == len(PAIRS)


def test_a_long_prompt_keeps_its_start_and_its_end() -> None:
    assert shorten(np.arange(100), 12).tolist() == [0, 1, 2, *range(91, 100)]
    assert shorten(np.arange(5), 12).tolist() == [0, 1, 2, 3, 4]


def test_sequences_of_a_row_do_not_see_each_other(room: TextCausal, model: Model) -> None:
    device = next(model.module.parameters()).device
    short = [Record(name, prompt=f"What is {name}?", completion=f"It is {name}.") for name in "ab"]
    batch = {k: v.to(device) for k, v in room.collate([room.encode(model, short, 64)[0]]).items()}
    second = int((batch["position_ids"][0] == 0).nonzero()[1])
    batch["labels"][0, : second + 1] = IGNORED
    with torch.no_grad():
        before = room.losses(model.module, batch)[""]
        batch["input_ids"][0, :second] = 5
        after = room.losses(model.module, batch)[""]
    torch.testing.assert_close(before, after)


def test_log_likelihood_is_that_of_the_logits(room: TextCausal, model: Model) -> None:
    predictor = room.predictor(model)
    windows = [ids[:n] for ids, n in zip(tokenise(model, TEXTS), (5, 20, 30, 2, 40), strict=True)]
    score_from = [1, 10, 1, 1, 39]
    for window, start, found in zip(windows, score_from, predictor.log_likelihood(windows, score_from), strict=True):
        logits = torch.from_numpy(predictor.forward(window))
        expected = logits.log_softmax(-1)[range(start - 1, len(window) - 1), window[start:]]
        np.testing.assert_allclose(found, expected.numpy(), atol=0.02)


def test_neighbours_in_a_batch_do_not_change_a_sample(room: TextCausal, model: Model) -> None:
    predictor = room.predictor(model)
    prompts = [ids[:n] for ids, n in zip(tokenise(model, TEXTS), (1, 7, 30, 2, 12), strict=True)]
    greedy = Sampling(max_new_tokens=12, ignore_eos=True)
    together = predictor.generate(prompts, greedy)
    assert [len(ids) for ids in together] == [12] * 5
    for prompt, ids in zip(prompts, together, strict=True):
        np.testing.assert_array_equal(ids, predictor.generate([prompt], greedy)[0])


def test_greedy_decoding_follows_the_logits(room: TextCausal, model: Model) -> None:
    predictor = room.predictor(model)
    ids = tokenise(model, TEXTS)[0][:6].tolist()
    (drawn,) = predictor.generate([ids], Sampling(max_new_tokens=10, ignore_eos=True))
    for token in drawn:
        assert token == predictor.forward(ids)[-1].argmax()
        ids.append(int(token))


def test_a_prompt_beyond_the_context_is_refused(room: TextCausal, model: Model) -> None:
    with pytest.raises(ValueError, match="context of 64"):
        room.predictor(model).generate([list(range(60))], Sampling(max_new_tokens=5))


def test_an_untrained_model_knows_as_little_as_its_vocabulary_says(room: TextCausal, model: Model) -> None:
    (metric,) = room.evaluate(room.predictor(model), model, ROWS, recipe().evaluate, seed=0)
    tokens = sum(len(ids) + 1 for ids in tokenise(model, TEXTS))
    uniform = tokens * math.log2(len(model.processor)) / sum(map(len, TEXTS))
    assert metric.value == pytest.approx(uniform, rel=0.1)
    assert room.baselines(model, ROWS, ROWS)["bits_per_byte"] < metric.value


def test_another_architecture_from_a_directory(room: TextCausal, model: Model, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    end = model.processor.eos_token_id
    config = GPT2Config(
        vocab_size=320, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=end, eos_token_id=end
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    other = room.build(recipe(path=str(tmp_path)), [])
    batch = room.collate([room.encode(other, ROWS, 32)[0]])
    assert torch.isfinite(room.losses(other.module, batch)[""])
    metrics = room.evaluate(room.predictor(other), other, [*ROWS, *PAIRS], recipe().evaluate, seed=0)
    assert [m.name for m in metrics] == ["bits_per_byte", "answer_rouge_l", "answer_bleu"]


def test_a_checkpoint_that_is_not_there_is_named(room: TextCausal, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nowhere"):
        room.build(recipe(path=str(tmp_path / "nowhere")), [])


def test_a_pickled_checkpoint_is_refused(room: TextCausal, model: Model, tmp_path: Path) -> None:
    room.save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.module.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(RecipeError):
        room.load(tmp_path)


def test_facts_of_text_and_code() -> None:
    broken = TextCausal().facts(Record("1", text="caf\N{REPLACEMENT CHARACTER}"))
    assert (broken["length"], broken["valid_utf8"], broken["replacement_characters"]) == (4, False, 1)
    assert TextCausal().facts(Record("1", text="\ud800"))["valid_utf8"] is False
    assert Code().facts(Record("1", text="x = 1"))["parses"] is True
    assert Code().facts(Record("1", text="x ="))["parses"] is False
    assert Code().facts(Record("1", prompt="def f(): pass", completion="Do nothing."))["parses"] is True
