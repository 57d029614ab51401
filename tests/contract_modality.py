"""The contract of a modality: the same checks for every room in `ROOMS`.

A new room adds a tiny model and a few rows to `TINY`, and is covered.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flywheel.artifact import sha256
from flywheel.export import export
from flywheel.modalities.base import Modality, Model
from flywheel.modalities.rooms import ROOMS, room
from flywheel.recipe import Recipe
from flywheel.record import Record, write_rows
from flywheel.runtimes.base import Sampling
from flywheel.runtimes.bundle import RUNTIMES

DECODER = {
    "tokenizer": {"vocab_size": 320},
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
SEQ2SEQ = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}


def text_rows() -> list[Record]:
    rows = [Record(f"t{i}", text=f"Day {i}. " + f"The {i}th ship sails at dawn. " * (i + 2)) for i in range(6)]
    return rows + [Record(f"p{i}", prompt=f"What is {i} + {i}?", completion=f"It is {2 * i}.") for i in range(4)]


def code_rows() -> list[Record]:
    function = 'def scale_{0}(value):\n    """Times {0}."""\n    result = value * {0}\n    return result\n\n\n'
    rows = [Record(f"c{i}", text="".join(function.format(n) for n in range(i, i + 4))) for i in range(6)]
    pair = "def add_{0}(value):\n    return value + {0}\n"
    return rows + [Record(f"p{i}", prompt=pair.format(i), completion=f"Add {i} to it.") for i in range(4)]


def digit_rows() -> list[Record]:
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rows = []
    for i in range(60):
        png = io.BytesIO()
        Image.fromarray((images[i].reshape(8, 8) * 15.9).astype(np.uint8)).save(png, "PNG")
        rows.append(Record(f"d{i}", image=png.getvalue(), label=str(labels[i])))
    return rows


def preference_rows() -> list[Record]:
    rows = [Record(f"a{i}", prompt=f"{i} + {i}?", chosen=f"{2 * i}.", rejected=f"No idea {i}.") for i in range(4)]
    rows += [Record(f"b{i}", chosen=f"Yes, {i} it is.", rejected=f"I cannot say {i}.") for i in range(2)]
    talk = [{"role": "user", "content": "Hi"}]
    sides = ([{"role": "assistant", "content": text}] for text in ("Good day", "What"))
    return [*rows, Record("c", messages=talk, chosen=next(sides), rejected=next(sides))]


TINY: dict[str, tuple[dict[str, Any], Callable[[], list[Record]], str]] = {
    "text_causal": (DECODER, text_rows, "bits_per_byte"),
    "code": (DECODER, code_rows, "bits_per_byte"),
    "text_masked": ({k: v for k, v in DECODER.items() if "key_value" not in k}, text_rows, "masked_bits_per_token"),
    "text_reward": (DECODER, preference_rows, "preference_accuracy"),
    "text_seq2seq": (SEQ2SEQ, text_rows, "span_bits_per_byte"),
    "image_diffusion": ({"block_out_channels": [8, 16], "num_train_timesteps": 50}, digit_rows, "label_accuracy"),
}
"""Room → its part of the recipe, its rows, the metric that ranks versions."""
DRAWS_NOTHING = {"text_reward"}
"""Rooms whose answers do not depend on a seed."""


@dataclass
class Subject:
    room: Modality
    recipe: Recipe
    rows: list[Record]
    model: Model
    directory: Path
    """Where the model was saved."""


@pytest.fixture(scope="module", params=sorted(ROOMS))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    name = request.param
    assert name in TINY, f"add a tiny {name} to TINY in {__file__}"
    sizes, rows, metric = TINY[name]
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": metric},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": name, **sizes},
            "evaluate": {"num_samples": 12, "generation": {"max_new_tokens": 12, "num_inference_steps": 4}},
            "optimize": {"precisions": ["fp32"], "compare_tokens": 24},
        }
    )
    directory = tmp_path_factory.mktemp(name) / "model"
    opened = room(name)
    model = opened.build(recipe, rows())
    opened.save(model, directory)
    return Subject(opened, recipe, rows(), model, directory)


def batch(s: Subject, model: Model) -> dict[str, torch.Tensor]:
    features = s.room.encode(model, s.rows, 32)
    return s.room.collate([features[i] for i in range(min(8, len(features)))])  # type: ignore[arg-type]


def weights(directory: Path) -> dict[str, str]:
    return {str(f.relative_to(directory)): sha256(f) for f in directory.rglob("*") if f.is_file()}


def test_facts_are_plain_values(subject: Subject) -> None:
    facts = [subject.room.facts(row) for row in subject.rows]
    assert all(set(f) == set(facts[0]) for f in facts)
    assert all(json.loads(json.dumps(f)) == f for f in facts)
    assert len({f["digest"] for f in facts}) == len(subject.rows)


def test_equal_recipes_build_equal_bytes(subject: Subject, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    subject.room.save(subject.room.build(subject.recipe, subject.rows), tmp_path)
    assert weights(tmp_path) == weights(subject.directory)
    assert torch.equal(state, torch.random.get_rng_state())


def test_another_seed_builds_other_weights(subject: Subject, tmp_path: Path) -> None:
    other = subject.recipe.model_copy(update={"seed": 1})
    subject.room.save(subject.room.build(other, subject.rows), tmp_path)
    assert weights(tmp_path) != weights(subject.directory)


def test_saved_models_hold_safetensors_and_no_pickles(subject: Subject) -> None:
    suffixes = {f.suffix for f in subject.directory.rglob("*") if f.is_file()}
    assert ".safetensors" in suffixes
    assert suffixes <= {".safetensors", ".json", ".txt"}


def test_a_loaded_model_saves_the_same_bytes(subject: Subject, tmp_path: Path) -> None:
    subject.room.save(subject.room.load(subject.directory), tmp_path)
    assert weights(tmp_path) == weights(subject.directory)


def test_features_have_fixed_shapes_and_order(subject: Subject) -> None:
    first, again = (subject.room.encode(subject.model, subject.rows, 32) for _ in range(2))
    assert len(first) == len(again) > 0  # type: ignore[arg-type]
    shapes = {name: value.shape for name, value in first[0].items()}
    for i in range(len(first)):  # type: ignore[arg-type]
        assert {name: value.shape for name, value in first[i].items()} == shapes
        assert all(torch.equal(value, again[i][name]) for name, value in first[i].items())


def test_training_lowers_the_losses(subject: Subject) -> None:
    model = subject.room.load(subject.directory)
    inputs = batch(subject, model)
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
    totals = []
    for _ in range(8):
        torch.manual_seed(0)
        total = torch.stack(list(subject.room.losses(model.module.train(), inputs).values())).sum()
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert np.isfinite(totals).all()
    assert totals[-1] < totals[0]


def test_a_loaded_model_predicts_the_same(subject: Subject) -> None:
    loaded = subject.room.load(subject.directory)
    (prompt,) = subject.room.prompts(subject.model, subject.rows, 1)
    here, there = (subject.room.predictor(m).forward(prompt) for m in (subject.model, loaded))
    assert here.dtype == np.float32
    assert np.isfinite(here).all()
    np.testing.assert_array_equal(here, there)


def test_prompts_are_the_same_every_time(subject: Subject) -> None:
    first, again = (subject.room.prompts(subject.model, subject.rows, 3) for _ in range(2))
    assert len(first) == 3
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_seed_reproduces_its_samples(subject: Subject) -> None:
    predictor = subject.room.predictor(subject.model)
    prompts = subject.room.prompts(subject.model, subject.rows, 2)
    drawn = [
        predictor.generate(prompts, Sampling(max_new_tokens=8, temperature=1.0, seed=seed, num_inference_steps=2))
        for seed in (7, 7, 8)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    same = all(np.array_equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))
    assert same == (subject.recipe.model.modality in DRAWS_NOTHING)


def test_metrics_have_intervals_and_a_direction(subject: Subject) -> None:
    predictor = subject.room.predictor(subject.model)
    metrics = subject.room.evaluate(predictor, subject.model, subject.rows, subject.recipe.evaluate, 0)
    assert subject.recipe.objective.metric in {m.name for m in metrics}
    for metric in metrics:
        assert metric.low <= metric.value <= metric.high
        assert metric.better in ("higher", "lower")


def test_baselines_are_named_as_metrics(subject: Subject) -> None:
    predictor = subject.room.predictor(subject.model)
    metrics = subject.room.evaluate(predictor, subject.model, subject.rows, subject.recipe.evaluate, 0)
    baselines = subject.room.baselines(subject.model, subject.rows, subject.rows)
    assert set(baselines) <= {m.name for m in metrics}
    assert all(np.isfinite(value) for value in baselines.values())


def test_samples_are_for_people(subject: Subject) -> None:
    predictor = subject.room.predictor(subject.model)
    samples = subject.room.samples(
        predictor, subject.model, subject.rows, subject.recipe.evaluate.generation, subject.recipe.seed
    )
    if isinstance(samples, list):
        assert samples
        assert all(isinstance(text, str) for sample in samples for text in sample.values())
    else:
        assert samples.png.startswith(b"\x89PNG")


def test_the_export_names_a_runtime_and_equals_torch(subject: Subject, tmp_path: Path) -> None:
    rows, bundle = tmp_path / "rows", tmp_path / "bundle"
    rows.mkdir()
    bundle.mkdir()
    write_rows(rows / "heldout.parquet", [r for r in subject.rows if r.completion is None])
    summary = export(subject.recipe, subject.directory, rows, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (proof,) = summary["precisions"]
    assert manifest["runtime"] in RUNTIMES
    assert proof["accepted"]
    assert proof["max_logit_error"] < 1e-3
    assert proof["tokens_equal"] == proof["tokens_compared"] > 0
