"""The protocol of a modality. One room = one file = one class with these methods; nothing outside asks which it is.

The life of a room in one run:

    facts(record)                     what validation may check of a row
    outline                           shapes alone: what training will take of memory and time
    build → encode → collate → losses      training (flywheel.training owns the loop)
    save → load                       safetensors and what turns rows into tensors
    predictor(model)                  torch behind the same two methods as onnxruntime: forward and generate
    prompts, forward, generate        the same questions to torch and to onnxruntime: parity is comparing the answers
    evaluate(predictor, rows)         metrics with intervals, for either
    export(model, directory)          graphs or a decoder checkpoint, and the manifest for flywheel.runtimes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Dataset

    from flywheel.metrics.base import Painter, Speaker
    from flywheel.metrics.metric import Metric
    from flywheel.recipe import Evaluate, Generation, Recipe
    from flywheel.record import Record
    from flywheel.runtimes.base import Predictor

Array = NDArray[Any]


@dataclass
class Model:
    """A module with what turns rows into its inputs."""

    module: torch.nn.Module
    processor: Any = None
    """Tokenizer, scheduler or normalisation: the room's own."""


@dataclass(frozen=True)
class Graph:
    """A module that `torch.onnx.export(dynamo=True)` turns into one ONNX file.

    `example` are its positional inputs, tensors or tuples of tensors, and `inputs` the names of all of these tensors in
    their order; `dynamic` maps such a name to {axis: axis name}.
    """

    module: torch.nn.Module
    example: tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class DecoderCheckpoint:
    """A decoder-only checkpoint in hub layout; onnxruntime-genai's builder turns it into ONNX with a KV cache."""

    directory: Path


@dataclass(frozen=True)
class Export:
    """What a room hands to the exporter: files by stem, and the manifest that flywheel.runtimes reads.

    `manifest` names the runtime (`{"runtime": "decoder", ...}`) and carries what its loop needs: special tokens,
    scheduler, normalisation, sampling defaults. It is plain JSON.
    """

    graphs: Mapping[str, Graph | DecoderCheckpoint]
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A picture for people: PNG bytes and the file name without suffix."""

    name: str
    png: bytes


class Modality(Protocol):
    """What a room offers. Rows are `Record`s; arrays are numpy outside training."""

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        """Columns that expectations may name for this row, such as `length`, `parses`, `digest`."""

    def build(self, recipe: Recipe, rows: Sequence[Record]) -> Model:
        """A fresh model: from `recipe.model.path`, or from scratch and seeded, with its tokenizer where it has one."""

    def outline(self, recipe: Recipe, max_length: int) -> tuple[torch.nn.Module, Mapping[str, Any]]:
        """The module of `build` and one feature of the shapes that `encode` gives, from the recipe and the config of a
        checkpoint alone: no rows and no weights are read. Called under fake tensors, to say what training takes."""

    def encode(
        self, model: Model, rows: Sequence[Record], max_length: int, whole: bool = False
    ) -> Dataset[Mapping[str, Any]]:
        """Map-style features of fixed shapes, in an order that depends on rows and arguments alone.

        `whole` learns every token of every row, answers and what stands before them, where a room tells them apart.
        Rows that cannot be learned are in `left_out` of the result, where it has that: a sequence of LeftOut.
        """

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of features."""

    def losses(self, module: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Scalar losses by submodule; `""` stands for all weights."""

    def save(self, model: Model, directory: Path) -> None:
        """Write weights (safetensors) and processor in the layout of a hub snapshot."""

    def load(self, directory: Path) -> Model:
        """Read back what `save` wrote. Never runs code from the directory."""

    def predictor(self, model: Model) -> Predictor:
        """The torch reference behind the interface of a runtime."""

    def prompts(self, model: Model, rows: Sequence[Record], count: int) -> list[Any]:
        """Inputs to `Predictor.forward` and `Predictor.generate` made from held-out rows, deterministic."""

    def evaluate(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """Metrics of these rows. Rows with `completion` are scored as answers, others as data."""

    def baselines(self, model: Model, train: Sequence[Record], heldout: Sequence[Record]) -> dict[str, float]:
        """Metric name → value of the simple model fitted to the same rows, on the same held-out rows."""

    def samples(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], generation: Generation, seed: int
    ) -> Any:
        """A few samples for people: text, or a `Picture`."""

    def export(self, model: Model, directory: Path) -> Export:
        """Graphs and manifest. Files that a runtime needs beside them (tokenizer.json) are written into `directory`."""


@runtime_checkable
class Speaks(Protocol):
    """A room whose models metrics may ask in strings."""

    def speaker(self, model: Model, predictor: Predictor) -> Speaker:
        """A model behind a predictor, asked in strings."""


@runtime_checkable
class Paints(Protocol):
    """A room whose models metrics may ask for pictures."""

    def painter(self, model: Model, predictor: Predictor) -> Painter:
        """A model behind a predictor, asked for pictures."""
