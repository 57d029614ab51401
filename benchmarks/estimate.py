"""How near the estimate of memory, made before a training starts, comes to the memory that training takes.

    python benchmarks/estimate.py [--json]      (about four minutes; writes benchmarks/estimate.json)

Each case trains a few steps in a process of its own, with the allocator set as `flywheel run` sets it; its highest
resident set is compared with the estimate that the same recipe gets without any of its weights.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine

STEPS = 3
EAGER: dict[str, Any] = {"torch_compile": False}
TEXT: dict[str, Any] = {"modality": "text_causal", "tokenizer": {"vocab_size": 8192}, "hidden_size": 256}
MIDDLE = {**TEXT, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 8}
MIDDLE |= {"num_key_value_heads": 8, "tokenizer": {"vocab_size": 16384}}
BIG = {**MIDDLE, "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 16}
PICTURES: dict[str, Any] = {"modality": "image_diffusion", "sample_size": 32, "block_out_channels": [64, 128, 128]}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    "7 M, eager": (TEXT, EAGER, None),
    "7 M, eager, float32": (TEXT, {**EAGER, "bf16": False}, None),
    "7 M, compiled": (TEXT, {}, None),
    "7 M, batch 32 of 512": (TEXT, {**EAGER, "per_device_train_batch_size": 32, "max_length": 512}, None),
    "50 M, eager": (MIDDLE, EAGER, None),
    "50 M, compiled": (MIDDLE, {}, None),
    "50 M, checkpointing": (MIDDLE, {**EAGER, "gradient_checkpointing": True}, None),
    "50 M, muon": (MIDDLE, {**EAGER, "optim": "muon"}, None),
    "50 M, LoRA": (MIDDLE, EAGER, {"r": 8}),
    "200 M, eager": (BIG, {**EAGER, "per_device_train_batch_size": 4}, None),
    "200 M, accumulation": (
        BIG,
        {**EAGER, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        None,
    ),
    "pictures, eager": (PICTURES, {**EAGER, "per_device_train_batch_size": 32}, None),
}


def main() -> None:
    if "--case" in sys.argv:
        sys.stdout.write(json.dumps(_trained(sys.argv[-1])))
        return
    rows, ratios = [], {}
    for name in CASES:
        expected, taken = _estimated(name), _run(name)
        rows += [_row(name, "estimated GB", expected / 1e9), _row(name, "peak resident GB", taken / 1e9)]
        ratios[name] = expected / taken
        print(f"{name:<24}{expected / 1e9:7.2f} GB estimated {taken / 1e9:7.2f} GB taken  {expected / taken:.2f}")
    ratios["median of all"] = statistics.median(ratios.values())
    result = {"machine": machine(), "rows": rows, "ratios": ratios}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(result) + "\n")


def _row(contender: str, metric: str, value: float) -> dict[str, Any]:
    return {"contender": contender, "metric": metric, "median": value, "low": value, "high": value}


def _recipe(name: str) -> Any:
    from flywheel.recipe import Recipe

    model, train, peft = CASES[name]
    data = {"sources": [{"type": "files", "path": "unused"}]}
    return Recipe.model_validate(
        {"name": "case", "objective": {"metric": "loss"}, "data": data, "model": model, "train": train, "peft": peft}
    )


def _estimated(name: str) -> int:
    from flywheel import estimate
    from flywheel.methods.rows import computes_bf16

    recipe = _recipe(name)
    on = estimate.Machine(10**12, bf16=recipe.train.bf16 and computes_bf16("cpu"))
    return estimate.estimate(estimate.wanted(recipe, "train"), on).bytes


def _run(name: str) -> int:
    """Bytes at the highest moment of a process that trains."""
    from flywheel.launch import ALLOCATOR

    command = [sys.executable, __file__, "--case", name]
    done = subprocess.run(command, env={**os.environ, **ALLOCATOR}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(json.loads(done.stdout))


def _trained(name: str) -> int:
    import torch

    from flywheel import adapters, optimizers
    from flywheel.methods.rows import Objective
    from flywheel.modalities.rooms import room as room_of

    recipe = _recipe(name)
    room, config = room_of(recipe.model.modality), recipe.train
    module, feature = room.outline(recipe, config.max_length)
    if recipe.peft is not None:
        adapters.attach(module, recipe.peft)
    if config.gradient_checkpointing:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    objective = Objective(module.train(), room.losses, config)
    optimizer = optimizers.build(objective, config)
    for _ in range(STEPS):
        for _ in range(config.gradient_accumulation_steps):
            objective(**room.collate([feature] * config.per_device_train_batch_size)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert all(torch.isfinite(p).all() for p in module.parameters())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
