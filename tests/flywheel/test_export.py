"""Export and its proof, on a tiny model."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers

from flywheel import proof
from flywheel.artifact import sha256
from flywheel.errors import ExportError
from flywheel.export import export
from flywheel.graphs import write_graphs
from flywheel.metrics.metric import Metric
from flywheel.modalities.base import DecoderCheckpoint, Graph
from flywheel.modalities.code import Code
from flywheel.proof import Answers
from flywheel.recipe import Recipe
from flywheel.record import Record, write_rows
from flywheel.runtimes.base import Sampling
from flywheel.runtimes.bundle import open_bundle
from tests.recipes import code_recipe

SOURCE = '''def scale(value, factor):
    """Return the value times the factor."""
    result = value * factor
    return result


def shift(value, by):
    """Return the value plus by."""
    return value + by
'''


def recipe(**optimize: Any) -> Recipe:
    base = code_recipe(Path("src"))
    base["model"] = {**base["model"], "num_hidden_layers": 1}
    base["optimize"] = {"precisions": ["fp32", "int8"], "compare_tokens": 32, **optimize}
    return Recipe.model_validate(base)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories of a model and of held-out rows."""
    root = tmp_path_factory.mktemp("inputs")
    rows = [Record(id=str(i), text=SOURCE.replace("value", f"value{i}")) for i in range(4)]
    write_rows(root / "heldout.parquet", rows)
    room = Code()
    model = room.build(recipe(), rows)
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)
    room.save(model, root / "model")
    return root / "model", root


@pytest.fixture(scope="module")
def exported(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("out")
    return export(recipe(max_quality_change=0.2), *inputs, out), out


def test_fp32_is_equal_to_torch(exported: tuple[dict[str, Any], Path]) -> None:
    fp32 = exported[0]["precisions"][0]
    assert fp32["precision"] == "fp32"
    assert fp32["accepted"]
    assert fp32["max_logit_error"] < 1e-4
    assert fp32["tokens_equal"] == fp32["tokens_compared"] == 3 * 32
    assert fp32["speedup"] > 0


def test_bundle_holds_what_was_accepted(exported: tuple[dict[str, Any], Path]) -> None:
    summary, out = exported
    accepted = [p["precision"] for p in summary["precisions"] if p["accepted"]]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["precisions"] == accepted
    assert manifest["default"] == summary["default"] in accepted
    assert {path.name for path in out.iterdir()} == {*accepted, "manifest.json", "proof.json", "tokenizer.json"}
    refused = [p for p in summary["precisions"] if not p["accepted"]]
    assert all(p["reason"] for p in refused)
    told = json.loads((out / "proof.json").read_text())
    assert [p["precision"] for p in told["precisions"]] == ["fp32", "int8"]
    assert {"torch", "fp32", "int8"} == told["measured"].keys()


def test_served_precision_answers(exported: tuple[dict[str, Any], Path]) -> None:
    chunks = list(open_bundle(exported[1]).stream("def scale(", Sampling(max_new_tokens=8, ignore_eos=True)))
    assert sum(chunk.tokens for chunk in chunks) == 8


def test_equal_models_give_equal_files(
    exported: tuple[dict[str, Any], Path], inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    export(recipe(precisions=["fp32"]), *inputs, tmp_path)
    for name in ("fp32/model.onnx", "fp32/model.onnx.data", "tokenizer.json"):
        assert sha256(tmp_path / name) == sha256(exported[1] / name)
    assert not (tmp_path / "int8").exists()


def test_no_precision_within_its_bounds(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="bound 1e-12"):
        export(recipe(precisions=["fp32"], max_logit_error=1e-12), *inputs, tmp_path)


def test_an_objective_beyond_the_room_is_proven_on_the_first_of_its_own(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    odd = recipe(precisions=["fp32"]).model_copy(
        update={"objective": recipe().objective.model_copy(update={"metric": "chrf"})}
    )
    assert export(odd, *inputs, tmp_path)["default"] == "fp32"
    measured = json.loads((tmp_path / "proof.json").read_text())["measured"]
    assert "bits_per_byte" in measured["fp32"]


def answers(samples: list[int], seconds: float, quality: float) -> Answers:
    metric = Metric("bits_per_byte", quality, quality, quality, "lower")
    return Answers([np.zeros((2, 3))], [np.array(samples)], [seconds], metric)


TORCH = answers([1, 2, 3], 4.0, 2.0)


@pytest.mark.parametrize(
    ("int8", "accepted", "words"),
    [
        (answers([1, 9, 9], 0.5, 2.02), True, r"bits_per_byte 1.00% worse .* 2.00 times as fast"),
        (answers([1, 2, 3], 0.5, 2.1), False, r"bits_per_byte 5.00% worse"),
        (answers([1, 2, 3], 1.1, 1.9), False, "0.91 times as fast"),
    ],
)
def test_int8_must_be_good_and_fast(int8: Answers, accepted: bool, words: str) -> None:
    verdict = proof.judge(recipe(), "int8", {"torch": TORCH, "fp32": answers([1, 2, 3], 1.0, 2.0), "int8": int8})
    assert verdict.accepted == accepted
    assert re.search(words, verdict.reason)


def test_fp32_must_agree_step_for_step() -> None:
    own = answers([1, 2, 4], 1.0, 2.0)
    verdict = proof.judge(recipe(), "fp32", {"torch": TORCH, "fp32": own})
    assert not verdict.accepted
    assert (verdict.tokens_equal, verdict.tokens_compared, verdict.speedup) == (2, 3, 4.0)
    shorter = proof.judge(recipe(), "fp32", {"torch": TORCH, "fp32": replace(own, samples=[np.array([1, 2])])})
    assert (shorter.tokens_equal, shorter.tokens_compared) == (2, 3)


def test_no_number_is_no_agreement() -> None:
    own = replace(TORCH, outputs=[np.full((2, 3), np.nan)])
    assert not proof.judge(recipe(), "fp32", {"torch": TORCH, "fp32": own}).accepted


class Small(torch.nn.Module):
    """A convolution and a matrix product, as in a UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.out = torch.nn.Linear(8, 8)

    def forward(self, sample: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.conv(sample)).permute(0, 2, 3, 1)) * scale[:, None, None, None]  # type: ignore[no-any-return]


def test_any_module_becomes_a_graph(tmp_path: Path) -> None:
    module, batch = Small(), {0: "batch"}
    example = (torch.zeros(2, 1, 8, 8), torch.ones(2))
    source = Graph(module, example, ("sample", "scale"), ("y",), {"sample": batch, "scale": batch})
    write_graphs(source, "unet", tmp_path, ["fp32", "int8"])
    sample, scale = torch.randn(5, 1, 8, 8), torch.randn(5)
    expected = module(sample, scale).detach().numpy()
    for precision, bound in (("fp32", 1e-5), ("int8", 0.2)):
        file = tmp_path / precision / "unet.onnx"
        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        found = session.run(["y"], {"sample": sample.numpy(), "scale": scale.numpy()})[0]
        assert found == pytest.approx(expected, abs=bound)
        graph = onnx.load(file, load_external_data=False).graph
        assert not any(node.metadata_props or node.doc_string for node in graph.node)
        assert str(Path(__file__).parents[2]).encode() not in file.read_bytes()


def test_an_architecture_that_the_builder_does_not_know(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=400)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    for file in inputs[0].glob("tokenizer*"):
        shutil.copy(file, tmp_path / "gpt2")
    with pytest.raises(ExportError, match="not currently supported"):
        write_graphs(DecoderCheckpoint(tmp_path / "gpt2"), "model", tmp_path / "out", ["fp32"])
