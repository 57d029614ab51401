"""Training on a GPU beside transformers' Trainer: share of the bf16 peak (MFU) and memory, for dense decoders.

    python benchmarks/training_gpu.py [--json] [--sizes 0.5B 1.5B] [--length 2048] [--repeats 3]

Each contender is a process of its own, in turn: `flywheel` (flywheel.loop with the method of rows as they are,
compiled) and `HF Trainer, packed` (the same packed rows, bf16, fused AdamW). Both measure square bf16 products in the
same process; `mfu` is 6 FLOP for each parameter and token and attention's, by the best of them. `peak_bytes` is what
CUDA's allocator held at most. Rows are full of random tokens. `--sizes tiny` is a self-check that runs on a CPU too.

Writes training_gpu.json where there is a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import machine  # noqa: E402

SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151_936},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "vocab_size": 151_936},
}  # fmt: skip
"""Those of Qwen2.5's two small models (0.494 and 1.544 billion weights, tied embeddings)."""
BATCH = {"tiny": 2, "0.5B": 16, "1.5B": 8}
STEPS, WARM = 24, 8
OURS, THEIRS = "flywheel", "HF Trainer, packed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.5B", "1.5B"])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contender", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(contend(arguments.contender, arguments.sizes[0], arguments.length)))
        return
    import torch

    if not torch.cuda.is_available() and arguments.sizes != ["tiny"]:
        sys.exit("no GPU: torch.cuda.is_available() is False (--sizes tiny checks the script itself)")
    result = measured(arguments)
    if torch.cuda.is_available():
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if arguments.json else table(result))


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contenders in turn, `repeats` times."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(arguments.repeats):
        for size in arguments.sizes:
            for contender in (OURS, THEIRS):
                command = [sys.executable, __file__, "--contender", contender, "--sizes", size]
                command += ["--length", str(arguments.length)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                    values.setdefault((size, contender, name), []).append(value)
    rows = [
        {"size": s, "contender": c, "metric": m, "median": statistics.median(v), "low": min(v), "high": max(v)}
        for (s, c, m), v in values.items()
    ]
    medians = {key: statistics.median(v) for key, v in values.items()}
    ratios = {}
    for size in arguments.sizes:
        for metric in ("tokens_per_second", "peak_bytes"):
            theirs = medians[size, THEIRS, metric]
            ratios[f"{size}: {OURS} / {THEIRS}, {metric}"] = medians[size, OURS, metric] / theirs if theirs else 0.0
    return {"machine": {**machine(), **gpu()}, "rows": rows, "ratios": ratios}


def gpu() -> dict[str, str]:
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}


def contend(contender: str, size: str, length: int) -> dict[str, float]:
    """Train in this process and say how it went."""
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from flywheel.modalities.token_rows import TokenRows
    from flywheel.speed import flops_per_token, peak_flops

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", tie_word_embeddings=True, max_position_embeddings=length, **SIZES[size])
    module = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    draw = np.random.default_rng(0)
    count = BATCH[size] * STEPS
    sequences = [(ids, ids) for ids in draw.integers(0, config.vocab_size, (count, length))]
    features = TokenRows(sequences, length, pad=0)
    flops = flops_per_token(module, length)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        seconds = (ours if contender == OURS else theirs)(module, features, BATCH[size], work)
        peak = peak_flops(device, "bfloat16", work / "peaks")
    speed = BATCH[size] * length * (STEPS - WARM) / seconds
    held = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"tokens_per_second": speed, "mfu": speed * flops / peak, "peak_flops": peak, "peak_bytes": float(held)}


def ours(module: Any, features: Any, batch: int, work: Path) -> float:
    """Seconds of the steps after the first WARM."""
    from torch.nn import Module
    from transformers import TrainingArguments

    from flywheel.loop import Loop
    from flywheel.methods.base import Made
    from flywheel.methods.rows import Batches, Objective, RowsTrainer
    from flywheel.modalities.text_causal import TextCausal
    from flywheel.progress import silent
    from flywheel.recipe_train import Sft
    from flywheel.voice import Voice

    config = Sft(max_steps=STEPS, per_device_train_batch_size=batch, max_length=2048, save_steps=10 * STEPS)
    room, times = TextCausal(), list[float]()
    trained: Module = module
    inputs = {"train_dataset": Batches(features, config, batch * STEPS, 0), "data_collator": room.collate}
    settings = {"max_steps": STEPS, "train_sampling_strategy": "sequential", "save_strategy": "no"}
    objective = Objective(trained, room.losses, config)
    made = Made(RowsTrainer, TrainingArguments, inputs, settings, objective)
    loop = Loop(made, trained, config, work, Voice(silent, lambda step: times.append(now())))
    loop.run(0, "ddp")
    return times[-1] - times[WARM - 1]


def theirs(module: Any, features: Any, batch: int, work: Path) -> float:
    """Seconds of the steps after the first WARM."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(now())

    arguments = TrainingArguments(
        output_dir=str(work), max_steps=STEPS, per_device_train_batch_size=batch, bf16=True, optim="adamw_torch_fused",
        use_cpu=not torch.cuda.is_available(), save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    Trainer(module, arguments, train_dataset=features, callbacks=[Clock()]).train()
    return times[-1] - times[WARM - 1]


def now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def table(result: dict[str, Any]) -> str:
    lines = [f"{r['size']:<6}{r['contender']:<20}{r['metric']:<20}{r['median']:>18.4g}" for r in result["rows"]]
    return "\n".join([*lines, *(f"{name:<56}{value:>8.2f}" for name, value in result["ratios"].items())])


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    main()
