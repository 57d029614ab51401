"""What is said before a training starts: sizes, memory, time, and a refusal with a change that really fits."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from flywheel import estimate, footprint, speed
from flywheel.errors import TrainingError
from flywheel.estimate import Machine
from flywheel.hardware import free_memory
from flywheel.modalities.rooms import room as room_of
from flywheel.modalities.text_causal import TextCausal
from flywheel.recipe import Recipe

DECODER: dict[str, Any] = {"modality": "text_causal", "tokenizer": {"vocab_size": 1024}, "num_hidden_layers": 3}
SIZES = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
HUGE = {**DECODER, **SIZES, "num_key_value_heads": 8, "tokenizer": {"vocab_size": 128256}, "tie_word_embeddings": False}
TRAIN = {"per_device_train_batch_size": 8, "torch_compile": False}


def recipe(model: dict[str, Any] = DECODER, **changes: Any) -> Recipe:
    data = {"sources": [{"type": "files", "path": "unused"}]}
    written = {"name": "tiny", "objective": {"metric": "loss"}, "data": data, "model": model, "train": TRAIN}
    return Recipe.model_validate({**written, **changes})


def of(wanted: Recipe, memory: int = 10**13, **machine: Any) -> estimate.Estimate:
    return estimate.estimate(estimate.wanted(wanted, "train"), Machine(memory, bf16=False, **machine))


def test_sizes_are_those_of_the_module() -> None:
    found, module = of(recipe()), TextCausal().outline(recipe(), 256)[0]
    count = sum(p.numel() for p in module.parameters())
    assert (found.footprint.parameters, found.footprint.trainable) == (count, count)
    assert found.memory["weights"] == pytest.approx(4 * count, rel=0.001)  # with its buffers
    assert found.memory["gradients"] == 4 * count
    assert found.memory["optimizer"] == pytest.approx(8 * count, rel=0.001)
    assert found.footprint.tokens == 8 * 256


def test_products_are_counted_as_the_formula_says() -> None:
    wanted = estimate.wanted(recipe(), "train")
    module, feature = wanted.room.outline(recipe(), 256)
    batch = wanted.room.collate([feature] * 2)
    exact = footprint.flops(wanted.room, module, batch) / 512
    assert speed.flops_per_token(module, 256) == pytest.approx(exact, rel=0.05)
    assert all(p.grad is None for p in module.parameters())


def test_blocks_that_are_not_run_are_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = recipe({**DECODER, "num_hidden_layers": 10})
    short = of(deep).footprint
    monkeypatch.setattr(footprint, "LONG", 100)
    whole = of(deep).footprint
    assert short.total == pytest.approx(whole.total, rel=0.01)
    assert short.flops == pytest.approx(whole.flops, rel=0.001)


@pytest.mark.parametrize(
    "less",
    [
        {"train": {**TRAIN, "per_device_train_batch_size": 4}},
        {"train": {**TRAIN, "gradient_checkpointing": True}},
        {"train": {**TRAIN, "optim": "muon"}},
        {"peft": {"r": 4}},
    ],
)
def test_what_takes_less_is_estimated_to_take_less(less: dict[str, Any]) -> None:
    assert of(recipe(**less)).bytes < of(recipe()).bytes


def test_what_stands_beside_the_model_counts() -> None:
    plain = of(recipe())
    average = of(recipe(train={**TRAIN, "ema_decay": 0.9}))
    assert average.memory["average"] == plain.memory["gradients"]
    reference = of(recipe(train={**TRAIN, "method": "dpo"}))
    assert reference.memory["reference"] == plain.memory["weights"]
    assert of(recipe(), processes=2).memory["communication"] == plain.memory["gradients"]
    shared = estimate.estimate(
        estimate.wanted(recipe(resources={"strategy": "fsdp"}), "train"), Machine(10**13, bf16=False, processes=2)
    )
    assert shared.memory["optimizer"] == plain.memory["optimizer"] // 2


def test_four_bits_take_less_than_sixteen() -> None:
    four, plain = (of(recipe(peft={"r": 4, "load_in_4bit": b})) for b in (True, False))
    assert four.memory["weights"] < 0.5 * plain.memory["weights"]


def test_pictures_are_measured_by_the_same_code() -> None:
    found = of(recipe({"modality": "image_diffusion", "sample_size": 16}))
    assert found.footprint.parameters > 1e5
    assert found.memory["activations"] > 0
    assert found.footprint.flops > 0


def test_what_fits_is_told_in_a_line() -> None:
    found = estimate.check(estimate.wanted(recipe(), "train"), Machine(10**11, bf16=False, peak=1e12))
    assert re.fullmatch(r"[\d.]+ million parameters; [\d.]+ of 100.0 GB of RAM, about .+", str(found))
    assert json.loads(json.dumps(found.as_json()))["seconds"] == found.seconds


def test_the_change_that_is_proposed_fits() -> None:
    wanted, whole = estimate.wanted(recipe(), "train"), of(recipe())
    there = Machine(int((whole.bytes - whole.memory["activations"] * 0.4) / (1 - estimate.SPARE)), bf16=False)
    with pytest.raises(TrainingError, match="do not fit") as refused:
        estimate.check(wanted, there)
    changes = re.findall(r"train\.(\w+)=(\w+)", refused.value.remedy.partition(", or ")[0])
    assert changes[0][0] == "per_device_train_batch_size"
    change = {key: json.loads(value) for key, value in changes}
    assert change["per_device_train_batch_size"] * change["gradient_accumulation_steps"] == 8
    after = estimate.check(estimate.wanted(recipe(train={**TRAIN, **change}), "train"), there)
    assert after.fits


def test_an_adapter_is_proposed_for_a_checkpoint_alone() -> None:
    wanted = estimate.wanted(recipe(), "train")
    stage = estimate.estimate(wanted, Machine(10**13, bf16=False))
    static = stage.memory["weights"] + stage.memory["process"]
    there = Machine(int((static + stage.memory["gradients"]) * 1.06), bf16=False)
    with pytest.raises(TrainingError) as scratch:
        estimate.check(wanted, there)
    assert "peft" not in scratch.value.remedy
    with pytest.raises(TrainingError) as learned:
        estimate.check(estimate.replace(wanted, trained_before=True), there)
    assert "peft: {r: 8" in learned.value.remedy


def test_seventy_billion_parameters_are_refused_at_once() -> None:
    began = time.process_time()
    with pytest.raises(TrainingError, match=r"70\.6 billion parameters do not fit") as refused:
        estimate.check(estimate.wanted(recipe(HUGE), "train"), Machine(24 * 10**9))
    assert "fsdp" in refused.value.remedy
    assert time.process_time() - began < 60  # a hang, not a measure


def test_a_module_with_weights_is_sketched_without_them() -> None:
    torch.manual_seed(0)
    room = room_of("text_causal")
    module, feature = room.outline(recipe(), 64)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    drawn = footprint.of_model(module, feature)
    footprint.measure(room, drawn, recipe().train, bf16=True)
    assert {p.device.type for p in drawn.module.parameters()} == {"meta"}
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_the_peak_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    first = speed.peak_flops("cpu", "float32", tmp_path)
    assert first > 1e8
    assert speed.peak_flops("cpu", "float32", tmp_path) == first
    (tmp_path / speed.FILE).write_text("torn")
    assert speed.peak_flops("cpu", "float32", tmp_path) > 1e8


def test_durations_are_told_shortly() -> None:
    told = [speed.duration(s) for s in (4.2, 600, 5400, 7260, 200_000)]
    assert told == ["4 s", "10 min", "1 h 30 min", "2 h 1 min", "2 d 7 h"]


def test_free_memory_is_of_this_machine() -> None:
    assert 10**8 < free_memory() < 10**14
