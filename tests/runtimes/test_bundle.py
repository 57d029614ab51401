"""What a bundle may be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flywheel.errors import ServingError
from flywheel.runtimes.bundle import open_bundle
from flywheel.runtimes.session import open_session
from tests.tiny_decoder import Tiny


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.bundle, tmp_path / "bundle"))


def test_opens_the_default_precision(copy: Path) -> None:
    runtime = open_bundle(copy)
    assert runtime.kind == "text"
    assert runtime.count("the") > 0


def test_a_precision_that_was_not_accepted_is_refused(copy: Path) -> None:
    with pytest.raises(ServingError, match="precision 'int8'"):
        open_bundle(copy, "int8")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"runtime": "decoder"}', '{"runtime": "x", "default": "a", "precisions": "a"}']
)
def test_a_broken_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ServingError, match="model bundle"):
        open_bundle(copy)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_weights_that_are_a_link_are_refused(copy: Path, tmp_path: Path, link: object) -> None:
    weights = copy / "fp32" / "model.onnx.data"
    weights.rename(tmp_path / "elsewhere")
    link(tmp_path / "elsewhere", weights)  # type: ignore[operator]
    with pytest.raises(ServingError, match="is a link"):
        open_bundle(copy)


@pytest.mark.parametrize("absolute", [False, True])
def test_onnxruntime_refuses_weights_outside(tmp_path: Path, absolute: bool) -> None:
    np.zeros(4, dtype=np.float32).tofile(tmp_path / "secret")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=str(tmp_path / "secret") if absolute else "../secret")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(Exception, match="External data path validation failed"):
        open_session(tmp_path / "bundle" / "model.onnx", gpu=False)


def test_graphs_name_no_path_of_this_machine(tiny: Tiny) -> None:
    graph = tiny.bundle / "fp32" / "model.onnx"
    assert str(Path(__file__).parents[2]).encode() not in graph.read_bytes()
    assert json.loads((tiny.bundle / "manifest.json").read_text())["runtime"] == "decoder"
    assert [i.type.tensor_type.shape.dim[3].dim_value for i in onnx.load(graph).graph.input[2:]] == [16] * 4
