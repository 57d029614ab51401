"""What an evaluation of 1,000 examples costs beside the answers alone, and what one more metric costs then.

    python benchmarks/evaluation.py [--json] [--store .flywheel/store] [--examples 1000] [--repeats 3]

The demo model (`make run` first) completes 1,000 held-out functions and writes 1,000 docstrings, or as many as are
held out. `evaluation` is all that the gate reads of a model, with its intervals: bits per byte of every held-out file,
the share of completions that parse, ROUGE-L and BLEU of the docstrings, exact match and ROUGE-1. `the model's own work`
is `Predictor.generate` of the same prompts and `log_likelihood` of the same files, and nothing else. `one more metric`
is the same evaluation with chrF, which finds the answers kept. In turns, in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.demo import Demo, demo
from benchmarks.machine import machine
from flywheel import evaluation
from flywheel.modalities import rooms
from flywheel.modalities.torch_decoder import TorchDecoder

METRICS = ("rouge: {types: [rouge1]}", "exact_match")
MORE = "one more metric"
KINDS = ("generate", "log_likelihood")
Asked = tuple[str, tuple[Any, ...]]
"""What the model was asked, as method and arguments."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--store", type=Path, default=Path(".flywheel/store"))
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    result = measured(arguments.store, arguments.examples, arguments.repeats)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(result))
    else:
        for row in result["rows"]:
            print(f"{row['contender']:<28}{row['median']:10.2f} s   {row['low']:.2f} to {row['high']:.2f}")
        for name, value in result["ratios"].items():
            print(f"{name:<60}{value:8.3f}")


def measured(store: Path, examples: int, repeats: int) -> dict[str, Any]:
    settings = f"evaluate.num_samples={examples}"
    found, more = (demo(store, settings, f"evaluate.metrics=[{', '.join(m)}]") for m in (METRICS, (*METRICS, "chrf")))
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as kept:
            seconds, asked = evaluated(found, Path(kept))
            again, anew = evaluated(more, Path(kept))
        generation, likelihoods = (answered(found, asked, kind) for kind in KINDS)
        for name, taken in (
            ("evaluation", seconds),
            ("generation", generation),
            ("likelihoods", likelihoods),
            ("the model's own work", generation + likelihoods),
            (MORE, again),
        ):
            times.setdefault(name, []).append(taken)
    rows = [
        {"contender": name, "metric": "seconds", "median": statistics.median(v), "low": min(v), "high": max(v)}
        for name, v in times.items()
    ]
    median = {row["contender"]: row["median"] for row in rows}
    return {
        "machine": machine(),
        "answers": drawn(asked),
        "rows": rows,
        "ratios": {
            f"evaluation / {other}, seconds": median["evaluation"] / median[other]
            for other in ("the model's own work", "generation")
        }
        | {f"{MORE}, answers drawn anew": drawn(anew)},
    }


def evaluated(found: Demo, kept: Path) -> tuple[float, list[Asked]]:
    """Seconds of an evaluation of the demo model, and all that its model was asked."""
    asked: list[Asked] = []
    plain = {kind: getattr(TorchDecoder, kind) for kind in KINDS}

    def noting(kind: str) -> Any:
        def call(self: TorchDecoder, *arguments: Any) -> Any:
            asked.append((kind, arguments))
            return plain[kind](self, *arguments)

        return call

    for kind in KINDS:
        setattr(TorchDecoder, kind, noting(kind))
    began = time.perf_counter()
    try:
        evaluation.measure(evaluation.Sitting(found.recipe, found.rows, kept), found.model, found.model)
    finally:
        for kind, method in plain.items():
            setattr(TorchDecoder, kind, method)
    return time.perf_counter() - began, asked


def answered(found: Demo, asked: Sequence[Asked], wanted: str) -> float:
    """Seconds that the model takes for the same answers, or likelihoods, and nothing else."""
    room = rooms.room(found.recipe.model.modality)
    predictor = room.predictor(room.load(found.model))
    began = time.perf_counter()
    for kind, arguments in asked:
        if kind == wanted:
            getattr(predictor, kind)(*arguments)
    return time.perf_counter() - began


def drawn(asked: Sequence[Asked]) -> int:
    return sum(len(arguments[0]) for kind, arguments in asked if kind == "generate")


if __name__ == "__main__":
    main()
