from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.errors import RecipeError, TrainingError
from flywheel.modalities import seq2seq_model
from flywheel.modalities.base import Model
from flywheel.modalities.decoder_model import decode
from flywheel.modalities.span_corruption import Corruption, sentinels, windows
from flywheel.modalities.text_seq2seq import TextSeq2Seq
from flywheel.modalities.token_rows import IGNORED
from flywheel.record import Record
from flywheel.runtimes.base import Sampling
from tests.tiny_seq2seq import TEXT, bart_snapshot, bundle_of, recipe, t5_snapshot, wander

TEXTS = [Record(f"t{i}", text=f"Row {i}: " + "the quick brown fox jumps. " * (1 + 3 * i)) for i in range(5)]
PAIRS = [Record(f"p{i}", prompt=f"What is {i}?" * (1 + i), completion=f"It is {i}.") for i in range(4)]
MARKED = Corruption((90, 91, 92, 93, 94), 0.15, infilling=False)
INFILLING = Corruption((99,), 0.3, infilling=True)


@pytest.fixture(scope="module")
def room() -> TextSeq2Seq:
    return TextSeq2Seq()


@pytest.fixture(scope="module")
def model(room: TextSeq2Seq) -> Model:
    return room.build(recipe(), [*TEXTS, *PAIRS])


def features(rows: Any) -> list[dict[str, list[int]]]:
    return [{name: value.tolist() for name, value in rows[i].items()} for i in range(len(rows))]


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 80), min_size=2, max_size=120))
def test_source_and_target_hold_every_token_once_and_in_order(ids: list[int]) -> None:
    made = MARKED.apply(np.array(ids))
    source, target = made.source.tolist(), made.target.tolist()
    markers = [i for i in source if i >= 90]
    assert markers == [i for i in target if i >= 90] == list(MARKED.markers[: len(markers)])
    spans = {m: [] for m in markers}
    for token in target:
        if token >= 90:
            at = token
        else:
            spans[at].append(token)
    assert all(spans.values())
    assert [t for i in source for t in (spans[i] if i >= 90 else [i])] == ids
    assert made.hidden.tolist() == [t for span in spans.values() for t in span]
    assert len(made.hidden) == min(max(round(len(ids) * 0.15), 1), len(ids) - 1)


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 80), min_size=2, max_size=120))
def test_infilling_writes_the_whole_text(ids: list[int]) -> None:
    made = INFILLING.apply(np.array(ids))
    assert made.target.tolist() == ids
    assert len(made.source) == len(ids) - len(made.hidden) + (made.source == 99).sum()


def test_spans_are_three_tokens_on_average_as_the_paper_has_it() -> None:
    marked = Corruption(tuple(range(900, 1000)), 0.15, infilling=False)
    made = marked.apply(np.arange(512) % 800)
    assert len(made.hidden) == 77
    assert (made.source >= 900).sum() == 26
    assert len(sentinels(512)) >= 26


def test_windows_are_of_about_one_length() -> None:
    assert [len(w) for w in windows(np.arange(101), 50)] == [34, 34, 33]
    assert list(windows(np.arange(0), 50)) == []


def test_a_row_is_corrupted_alike_wherever_it_stands(room: TextSeq2Seq, model: Model) -> None:
    alone, behind = (features(room.encode(model, rows, 90)) for rows in (TEXTS[2:3], [*PAIRS, *TEXTS]))

    def bare(feature: dict[str, list[int]]) -> tuple[list[int], list[int]]:
        return [i for i in feature["input_ids"] if i], [i for i in feature["labels"] if i != IGNORED]

    assert bare(alone[0]) in [bare(feature) for feature in behind]


def test_only_the_completion_of_a_pair_is_learned(room: TextSeq2Seq, model: Model) -> None:
    rows = room.encode(model, PAIRS, 64)
    end = model.processor.eos_token_id
    for feature, row in zip(features(rows), PAIRS, strict=True):
        source = [i for i, kept in zip(feature["input_ids"], feature["attention_mask"], strict=True) if kept]
        target = [i for i in feature["labels"] if i != IGNORED]
        assert (decode(model, source), decode(model, target)) == (row.prompt, row.completion)
        assert source[-1] == target[-1] == end
        assert feature["decoder_input_ids"][: len(target)] == [0, *target[:-1]]


def test_pairs_are_learned_as_texts_when_every_token_counts(room: TextSeq2Seq, model: Model) -> None:
    (feature,) = features(room.encode(model, PAIRS[3:], 64, whole=True))
    gap = model.processor.convert_tokens_to_ids("<extra_id_0>")
    assert gap in feature["input_ids"]
    assert gap in feature["labels"]


def test_rows_that_cannot_be_learned_are_named_with_their_reason(room: TextSeq2Seq, model: Model) -> None:
    rows = [
        Record("long", prompt="word " * 200, completion="yes"),
        Record("wordy", prompt="say", completion="word " * 200),
        Record("silent", prompt="say", completion=""),
        Record("blank", prompt=" ", completion="yes"),
        Record("short", text=""),
        Record("alone", prompt="say"),
        PAIRS[0],
    ]
    found = room.encode(model, rows, 32)
    assert {out.id: out.reason for out in found.left_out} == {
        "long": "prompt_too_long",
        "wordy": "completion_too_long",
        "silent": "empty_completion",
        "blank": "empty_prompt",
        "short": "too_short",
        "alone": "no_text",
    }
    assert len(found) == 1
    assert "32 fit" in next(out.detail for out in found.left_out if out.id == "long")


def test_rows_are_no_longer_than_the_longest(room: TextSeq2Seq, model: Model) -> None:
    rows = room.encode(model, PAIRS, 90)
    assert rows[0]["labels"].shape[0] <= 16 < rows[0]["input_ids"].shape[0] <= 90
    assert room.encode(model, TEXTS, 30)[0]["input_ids"].shape[0] <= 30


def test_padding_changes_no_loss(room: TextSeq2Seq, model: Model) -> None:
    module = model.module.cpu().eval()
    with torch.no_grad():
        alone = room.losses(module, room.collate([room.encode(model, PAIRS[:1], 64)[0]]))[""]
        padded = room.losses(module, room.collate([room.encode(model, [*PAIRS, *TEXTS], 64)[0]]))[""]
    torch.testing.assert_close(alone, padded)


def test_the_loss_is_that_of_the_likelihood(room: TextSeq2Seq, model: Model) -> None:
    rows = room.encode(model, PAIRS, 64)
    with torch.no_grad():
        loss = room.losses(model.module.cpu().eval(), room.collate([rows[i] for i in range(len(PAIRS))]))[""]
    asked, said = (
        seq2seq_model.prompts(model, [r.prompt for r in PAIRS]),
        seq2seq_model.answers(model, [r.completion for r in PAIRS]),
    )
    nats = room.predictor(model).log_likelihood(asked, said)
    assert [len(n) for n in nats] == [len(a) for a in said]
    assert loss.item() == pytest.approx(-np.concatenate(nats).mean(), rel=1e-5)


def test_neighbours_in_a_batch_do_not_change_a_sample(room: TextSeq2Seq) -> None:
    model = wander(room.build(recipe(), TEXTS))
    predictor = room.predictor(model)
    asked = seq2seq_model.prompts(model, ["a", "the quick brown fox", TEXT[:60]])
    greedy = Sampling(max_new_tokens=12, ignore_eos=True)
    together = predictor.generate(asked, greedy)
    assert [len(ids) for ids in together] == [12] * 3
    for prompt, ids in zip(asked, together, strict=True):
        np.testing.assert_array_equal(ids, predictor.generate([prompt], greedy)[0])


def test_greedy_decoding_is_that_of_transformers(room: TextSeq2Seq) -> None:
    model = wander(room.build(recipe(), TEXTS))
    predictor = room.predictor(model)
    (asked,) = seq2seq_model.prompts(model, ["the quick brown"])
    module: Any = model.module
    inputs = torch.from_numpy(asked)[None].to(module.device)
    theirs = module.generate(inputs, max_new_tokens=10, do_sample=False)[0, 1:].tolist()
    assert predictor.generate([asked], Sampling(max_new_tokens=10))[0].tolist() == [i for i in theirs if i != 1]


def test_a_few_steps_teach_a_small_task(room: TextSeq2Seq) -> None:
    animals = {"cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack"}
    rows = [Record(a, prompt=f"What does the {a} say?", completion=f"The {a} says {s}.") for a, s in animals.items()]
    small = recipe(num_hidden_layers=1)
    model = room.build(small, rows)
    untrained = {m.name: m.value for m in room.evaluate(room.predictor(model), model, rows, small.evaluate, 0)}
    batch = room.collate([room.encode(model, rows, 32)[i] for i in range(4)])
    module = model.module.cpu()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        room.losses(module.train(), batch)[""].backward()
        optimizer.step()
    found = {m.name: m.value for m in room.evaluate(room.predictor(model), model, rows, small.evaluate, 0)}
    assert found["answer_rouge_l"] == 1
    assert found["answer_bits_per_byte"] < 0.1 < untrained["answer_bits_per_byte"]
    baselines = room.baselines(model, rows[:3], rows)
    assert set(baselines) == set(found)
    assert baselines["answer_rouge_l"] < 1


def test_a_hub_snapshot_of_t5_is_opened_and_saved(room: TextSeq2Seq, tmp_path: Path) -> None:
    given = t5_snapshot(tmp_path / "t5")
    model = room.build(recipe(path=str(given)), [])
    assert (seq2seq_model.longest(model), seq2seq_model.context(model)) == (512, 1024)
    assert len(seq2seq_model.prompts(model, [TEXT])[0]) > 20
    feature = room.encode(model, TEXTS[:1], 64)[0]
    assert model.processor.convert_tokens_to_ids("<extra_id_0>") in feature["labels"].tolist()
    loss = room.losses(model.module.eval(), room.collate([feature]))[""]
    assert torch.isfinite(loss)
    room.save(model, tmp_path / "saved")
    again = room.load(tmp_path / "saved")
    assert torch.equal(room.losses(again.module.eval(), room.collate([feature]))[""], loss)


def test_a_t5_of_version_1_1_keeps_its_output_layer(room: TextSeq2Seq, tmp_path: Path) -> None:
    given = t5_snapshot(tmp_path / "t5", feed_forward_proj="gated-gelu")
    from safetensors.torch import load_file, save_file

    weights = load_file(given / "model.safetensors")
    head = torch.randn(128, 32)
    save_file({**weights, "lm_head.weight": head}, given / "model.safetensors", {"format": "pt"})
    told = json.loads((given / "config.json").read_text())
    del told["scale_decoder_outputs"]
    (given / "config.json").write_text(json.dumps({**told, "tie_word_embeddings": False}))
    first = room.build(recipe(path=str(given)), [])
    room.save(first, tmp_path / "saved")
    for model in (first, room.load(tmp_path / "saved")):
        module: Any = model.module
        assert torch.equal(module.lm_head.weight, head)
        assert not torch.equal(module.lm_head.weight, module.shared.weight)
        assert module.config.scale_decoder_outputs is False


def test_a_hub_snapshot_of_bart_infills_and_forces_its_first_token(room: TextSeq2Seq, tmp_path: Path) -> None:
    model = room.build(recipe(path=str(bart_snapshot(tmp_path / "bart"))), [])
    assert (seq2seq_model.longest(model), seq2seq_model.context(model)) == (64, 64)
    (feature,) = features(room.encode(model, TEXTS[:1], 64))
    assert model.processor.mask_token_id in feature["input_ids"]
    assert decode(model, [i for i in feature["labels"] if i != IGNORED]) == TEXTS[0].text
    with pytest.raises(TrainingError, match="positions"):
        room.encode(model, TEXTS, 65)
    made = bundle_of(wander(model), tmp_path / "bundle", "fp32")
    asked = seq2seq_model.prompts(model, ["the fox", "a lazy dog jumps"])
    greedy = Sampling(max_new_tokens=20, ignore_eos=True)
    assert made.runtime().prefix == [2, 0]
    assert [a.tolist() for a in made.runtime().generate(asked, greedy)] == [
        a.tolist() for a in made.torch.generate(asked, greedy)
    ]
    metrics = room.evaluate(made.runtime(), model, [*TEXTS, *PAIRS], recipe().evaluate, 0)
    reference = room.evaluate(made.torch, model, [*TEXTS, *PAIRS], recipe().evaluate, 0)
    assert [m.name for m in metrics] == [m.name for m in reference]
    assert [m.value for m in metrics] == pytest.approx([m.value for m in reference], rel=1e-4)


def test_texts_need_a_token_for_a_gap(room: TextSeq2Seq, tmp_path: Path) -> None:
    given = bart_snapshot(tmp_path / "bart")
    model = room.build(recipe(path=str(given)), [])
    model.processor.mask_token = None
    with pytest.raises(TrainingError, match="gap"):
        room.encode(model, TEXTS, 32)
    assert len(room.encode(model, PAIRS, 64)) == len(PAIRS)


def test_a_decoder_alone_is_refused(room: TextSeq2Seq, model: Model, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="encoder-decoder"):
        room.build(recipe(path=str(tmp_path)), [])


def test_heads_must_divide() -> None:
    with pytest.raises(ValueError, match="divide"):
        recipe(num_attention_heads=3)
