"""From what a room exports to ONNX files: one stem in all precisions.

A decoder checkpoint goes through onnxruntime-genai's model builder (fused attention with a KV cache; int8 is
weight-only, 8 bits in blocks of 32, MatMulNBits). Any other module goes through `torch.onnx.export(dynamo=True)`; its
int8 is onnxruntime's dynamic quantisation. Weights stand beside the graph in `<stem>.onnx.data`. Equal weights give
equal files.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from flywheel.errors import ExportError
from flywheel.modalities.base import DecoderCheckpoint, Graph

Precision = Literal["fp32", "int8"]


def write_graphs(source: Graph | DecoderCheckpoint, stem: str, out: Path, precisions: Sequence[Precision]) -> None:
    """Write `out/<precision>/<stem>.onnx` for each precision, `fp32` first where it is asked for.

    Raises ExportError for an architecture that cannot be exported.
    """
    for precision in precisions:
        (out / precision).mkdir(parents=True, exist_ok=True)
    files = {precision: out / precision / f"{stem}.onnx" for precision in precisions}
    with _quiet():
        try:
            if isinstance(source, DecoderCheckpoint):
                for precision, file in files.items():
                    _build_decoder(source, precision, file)
            else:
                _trace(source, files["fp32"])
                for file in files.values():
                    if file != files["fp32"]:
                        _quantise(files["fp32"], file)
        except NotImplementedError as error:
            raise ExportError(
                f"export of {stem} as {', '.join(precisions)}",
                found=str(error),
                expected="an architecture that the exporter knows",
                remedy="Choose another architecture.",
            ) from error


def _build_decoder(checkpoint: DecoderCheckpoint, precision: Precision, file: Path) -> None:
    """Run the model builder on a local checkpoint and keep the graph and its weights alone."""
    from onnxruntime_genai.models import builder

    options = ["hf_token=false", f"filename={file.name}"]
    if precision == "int8":
        options.append("shared_embeddings=false")  # there is no 8-bit Gather: the embedding stays float32
    source = str(checkpoint.directory)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        target = Path(scratch, "model")
        prepared = builder.parse_extra_options(None, source, str(target), precision, "cpu", scratch, options)
        builder.create_model(None, source, str(target), precision, "cpu", scratch, **prepared)
        size = json.loads((target / "genai_config.json").read_text())["model"]["decoder"]["head_size"]
        for part in (file.name, f"{file.name}.data"):
            (target / part).rename(file.parent / part)
    _tidy(file, {"kv_cache_dim": size})


def _trace(graph: Graph, file: Path) -> None:
    import torch

    names = iter(graph.inputs)

    def shape(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(shape, part))
        return dict(graph.dynamic.get(next(names), {})) or None

    shapes = tuple(map(shape, graph.example))
    with torch.no_grad():
        program = torch.onnx.export(
            graph.module.eval(),
            graph.example,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes if graph.dynamic else None,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(file, external_data=True)
    _tidy(file, {})


def _quantise(full: Path, file: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(full)
    del model.graph.value_info[:]  # shapes from before the exporter's own optimisation, which inference then refutes
    # The CPU's ConvInteger takes unsigned weights only.
    quantize_dynamic(model, file, weight_type=QuantType.QUInt8, use_external_data_format=True)
    _tidy(file, {})


def _tidy(file: Path, sizes: dict[str, int]) -> None:
    """Give named axes their size, and remove what names the machine that exported: traces, paths, producers' notes."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in sizes:
                axis.dim_value = sizes[axis.dim_param]
    for part in (model, model.graph, *model.functions, *_described(model)):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(model, file)


def _described(model: Any) -> Iterator[Any]:
    """Everything inside a model that may carry notes."""
    graph = model.graph
    yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node)
    for function in model.functions:
        yield from (*function.node, *function.value_info)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print their progress and warn about what we chose; errors still arrive as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
