"""Small recipes for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def code_recipe(root: Path, **changes: Any) -> dict[str, Any]:
    """A recipe over the Python files below `root` that trains a tiny model in a few seconds."""
    recipe: dict[str, Any] = {
        "name": "tiny-coder",
        "objective": {"metric": "bits_per_byte", "thresholds": {"bits_per_byte": {"beats": "before"}}},
        "data": {
            "sources": [{"type": "code", "path": str(root), "license": "MIT"}],
            "process": ["normalize_newlines", "exact_dedup"],
            "split": {"heldout": 0.25},
            "validate": {"expectations": [{"expect_column_values_to_be_unique": {"column": "digest"}}]},
        },
        "model": {
            "modality": "code",
            "tokenizer": {"vocab_size": 400},
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 192,
        },
        "train": {
            "max_steps": 30,
            "per_device_train_batch_size": 4,
            "max_length": 64,
            "warmup_steps": 2,
            "save_steps": 10,
            "logging_steps": 5,
            "torch_compile": False,
            "bf16": False,
        },
        "evaluate": {"num_samples": 4, "generation": {"max_new_tokens": 16}},
        "optimize": {"precisions": ["fp32"]},
    }
    return {**recipe, **changes}


def write(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def code_files(root: Path, modules: int = 8) -> Path:
    """A little package tree of distinct, parsing Python files."""
    for m in range(modules):
        folder = root / f"module{m}"
        folder.mkdir(parents=True)
        for f in range(2):
            lines = [f'"""Module {m}, file {f}."""', ""]
            for n in range(6):
                lines += [
                    f"def function_{m}_{f}_{n}(value):",
                    f'    """Return the value times {n + 2} plus {m * 7 + f}."""',
                    f"    result = value * {n + 2} + {m * 7 + f}",
                    "    return result",
                    "",
                ]
            (folder / f"file{f}.py").write_text("\n".join(lines))
    return root
