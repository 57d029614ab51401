"""Export: a trained model becomes a bundle of ONNX files, each precision proven or removed.

out/manifest.json   what flywheel.runtimes reads: the room's manifest, `default` and the accepted `precisions`
out/fp32/  int8/    graphs and weights of the accepted precisions
out/proof.json      every comparison, of refused precisions too; it holds times, so it differs between runs
out/...             what the runtime needs beside them, such as tokenizer.json
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from flywheel import proof
from flywheel.errors import ExportError
from flywheel.graphs import Precision, write_graphs
from flywheel.modalities.base import DecoderCheckpoint, Export
from flywheel.modalities.rooms import room as open_room
from flywheel.recipe import Recipe
from flywheel.record import Record, read_rows
from flywheel.runtimes.base import Runtime
from flywheel.runtimes.bundle import open_bundle

ROWS = ("heldout.parquet", "finetune_heldout.parquet")
"""Held-out rows of the first stage and, where there is one, of the second."""


def export(recipe: Recipe, model: Path, rows: Path, out: Path) -> dict[str, Any]:
    """Write the bundle of the model in `model` into `out`, proven on held-out rows from the directory `rows`.

    fp32 is always built, as what the others are compared with, and kept where the recipe asks for it. The fastest
    accepted precision becomes the default. Raises ExportError, with every reason, where none is accepted.
    """
    room = open_room(recipe.model.modality)
    trained = room.load(model)
    wanted = recipe.optimize.precisions
    built: tuple[Precision, ...] = ("fp32", *(p for p in wanted if p != "fp32"))
    with tempfile.TemporaryDirectory() as scratch:
        exported = room.export(trained, Path(scratch))
        _copy_side_files(exported, Path(scratch), out)
        for stem, source in exported.graphs.items():
            write_graphs(source, stem, out, built)
    _write_manifest(out, exported.manifest, "fp32", built)
    runtimes: dict[str, Runtime] = {precision: open_bundle(out, precision) for precision in built}
    verdicts, answers = proof.prove(recipe, room, trained, runtimes, _heldout(rows))
    verdicts = [v for v in verdicts if v.precision in wanted]
    precisions = [
        {
            **asdict(v),
            "bytes": proof.size(out / v.precision),
            "milliseconds_per_step": _milliseconds(answers[v.precision]),
        }
        for v in verdicts
    ]
    accepted = [v.precision for v in verdicts if v.accepted]
    if not accepted:
        raise ExportError(
            f"export of {recipe.name}",
            found="; ".join(f"{v.precision}: {v.reason}" for v in verdicts),
            expected="at least one precision within its bounds",
            remedy="Add fp32 to optimize.precisions, or widen the bounds there if you can accept the difference.",
        )
    for precision in built:
        if precision not in accepted:
            shutil.rmtree(out / precision)
    default = min(accepted, key=lambda precision: median(answers[precision].seconds))
    _write_manifest(out, exported.manifest, default, accepted)
    summary = {"default": default, "precisions": precisions}
    _write_json(out / "proof.json", {**summary, "measured": {name: _measured(a) for name, a in answers.items()}})
    return summary


def _heldout(rows: Path) -> list[list[Record]]:
    return [list(read_rows(rows / name)) for name in ROWS if (rows / name).exists()]


def _copy_side_files(exported: Export, scratch: Path, out: Path) -> None:
    """Copy what the room wrote for the runtime: everything but the checkpoints that become graphs."""
    checkpoints = {g.directory.resolve() for g in exported.graphs.values() if isinstance(g, DecoderCheckpoint)}
    for file in sorted(scratch.resolve().rglob("*")):
        if file.is_file() and checkpoints.isdisjoint(file.parents):
            target = out / file.relative_to(scratch.resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _write_manifest(out: Path, manifest: Mapping[str, Any], default: str, precisions: Any) -> None:
    _write_json(out / "manifest.json", {**manifest, "default": default, "precisions": list(precisions)})


def _milliseconds(answers: proof.Answers) -> float:
    """Median over the prompts: of a step of decoding, or of a picture."""
    steps = [len(sample) if sample.ndim == 1 else 1 for sample in answers.samples]
    return median(1e3 * seconds / count for seconds, count in zip(answers.seconds, steps, strict=True))


def _measured(answers: proof.Answers) -> dict[str, Any]:
    return {"seconds": [round(s, 4) for s in answers.seconds], answers.quality.name: answers.quality.value}


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
