"""Served models of one pass: masks filled in, texts scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel.graphs import write_graphs
from flywheel.modalities.rooms import room as room_of
from flywheel.recipe import Recipe
from flywheel.record import Record
from flywheel.runtimes.base import Sampling
from flywheel.runtimes.bundle import open_bundle
from flywheel.runtimes.single_pass import Filler

SIZES = {
    "tokenizer": {"vocab_size": 300},
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
ROWS = [Record("0", prompt="How?", chosen="So it is.", rejected="No."), Record("1", text="Ships sail at dawn.")]


def bundle(directory: Path, modality: str) -> Any:
    """The runtime of a fresh tiny model, and its torch reference."""
    sizes = {**SIZES, "num_key_value_heads": 1} if modality == "text_reward" else SIZES
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "any"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": modality, **sizes},
        }
    )
    room = room_of(modality)
    model = room.build(recipe, ROWS)
    exported = room.export(model, directory)
    write_graphs(exported.graphs["model"], "model", directory, ["fp32"])
    (directory / "manifest.json").write_text(
        json.dumps({**exported.manifest, "default": "fp32", "precisions": ["fp32"]})
    )
    return open_bundle(directory), room.predictor(model)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bundle(tmp_path_factory.mktemp("masked"), "text_masked")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bundle(tmp_path_factory.mktemp("reward"), "text_reward")


def test_masks_are_filled_in_and_the_rest_stays(masked: Any) -> None:
    served, torch = masked
    prompt = "Ships [MASK] at dawn, [MASK]."
    (piece,) = served.stream(prompt, Sampling())
    ids = served.tokenizer.encode(prompt).ids
    (drawn,) = torch.generate([ids], Sampling())
    first, second = (served.tokenizer.decode([int(token)]) for token in drawn)
    assert piece.text == f"Ships{first} at dawn,{second}."
    assert (piece.tokens, piece.finish_reason) == (2, "stop")


def test_fewer_tokens_than_masks_end_before_the_first_one_left(masked: Any) -> None:
    served, _ = masked
    (whole,) = served.stream("Ships [MASK] at dawn", Sampling())
    (cut,) = served.stream("Ships [MASK] at dawn [MASK]", Sampling(max_new_tokens=1))
    assert cut.text.startswith("Ships")
    assert "[MASK]" not in cut.text
    assert (cut.tokens, cut.finish_reason) == (1, "length")
    assert whole.finish_reason == "stop"


@pytest.mark.parametrize("prompt", ["Ships sail", "[MASK]" * 80])
def test_prompts_that_cannot_be_filled_are_refused_at_once(masked: Any, prompt: str) -> None:
    with pytest.raises(ValueError, match=r"fills in|tokens"):
        masked[0].stream(prompt, Sampling())


def test_batches_do_not_change_what_is_at_the_masks() -> None:
    table = np.random.default_rng(0).standard_normal((10, 10)).astype(np.float32)
    manifest = {"mask_token_id": 3, "pad_token_id": 0, "vocab_size": 10, "max_position_embeddings": 8}
    filler = Filler(lambda ids, mask: table[ids] * mask[..., None], manifest)
    prompts = [np.array([3, 1]), np.array([1, 3, 2, 3, 5]), np.array([4])]
    found = list(filler.at_masks(prompts))
    assert [len(rows) for rows in found] == [1, 2, 0]
    assert all(np.array_equal(row, table[3]) for rows in found for row in rows)


def test_a_text_is_answered_with_its_score(reward: Any) -> None:
    served, torch = reward
    prompt = "How?<|answer|>So it is."
    (piece,) = served.stream(prompt, Sampling())
    score = torch.forward(served.tokenizer.encode(prompt).ids)[0]
    assert float(piece.text) == pytest.approx(score, abs=2e-4)


def test_a_conversation_is_scored_whole(reward: Any) -> None:
    served, _ = reward
    said = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So <|answer|>."}]
    prompt = served.conversation(said)
    assert 0 < served.count(prompt) <= served.context
    (piece,) = served.stream(prompt, Sampling())
    assert np.isfinite(float(piece.text))


def test_scores_do_not_depend_on_their_batch(reward: Any) -> None:
    served, torch = reward
    prompts = [np.arange(5, 5 + n) for n in (3, 9, 1, 30)]
    alone = [served.forward(p)[0] for p in prompts]
    np.testing.assert_allclose(served.scores(prompts), alone, atol=1e-5)
    np.testing.assert_allclose(torch.scores(prompts), alone, atol=1e-5)
