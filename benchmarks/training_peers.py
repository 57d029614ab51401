"""What the peers of benchmarks/training.py run: their own scripts on the same model, documents and batches.

Each is given four rows of 512 tokens a batch, packed as it packs, bfloat16 where it can, and no activation
checkpointing. All print a line for each step, by whose times they are measured; a step is taken for 2,048 tokens, also
where some of them are padding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.training_contenders import RATE, ROWS
from benchmarks.training_corpus import LENGTH, LLAMA, VOCABULARY

Prepared = tuple[list[str], str]
"""Arguments of the interpreter, and what a line of a step contains."""


def trl(home: Path, model: Path, out: Path, steps: int) -> Prepared:
    """`trl/scripts/sft.py`, rows without a break, which is its fastest packing on a CPU."""
    options = {
        "model_name_or_path": model,
        "dataset_name": _alone(home, "trl"),
        "output_dir": out,
        "max_length": LENGTH,
        "packing": True,
        "packing_strategy": "wrapped",
        "per_device_train_batch_size": ROWS,
        "gradient_checkpointing": False,
        "bf16": True,
        "use_cpu": True,
        "learning_rate": RATE,
        "max_steps": steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return ["-m", "trl.scripts.sft", *(f"--{name}={value}" for name, value in options.items())], "'loss'"


def llamafactory(home: Path, model: Path, out: Path, steps: int) -> Prepared:
    """`llamafactory-cli train` of the stage `pt`."""
    directory = _alone(home, "llamafactory")
    (directory / "dataset_info.json").write_text(
        json.dumps({"documents": {"file_name": "documents.jsonl", "columns": {"prompt": "text"}}})
    )
    options = {
        "model_name_or_path": str(model),
        "stage": "pt",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "documents",
        "dataset_dir": str(directory),
        "cutoff_len": LENGTH,
        "packing": True,
        "bf16": True,
        "disable_gradient_checkpointing": True,
        "per_device_train_batch_size": ROWS,
        "learning_rate": RATE,
        "max_steps": steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": str(out),
        "overwrite_cache": True,
    }
    (directory / "options.json").write_text(json.dumps(options))
    return ["-m", "llamafactory.cli", "train", str(directory / "options.json")], "'loss'"


def axolotl(home: Path, model: Path, out: Path, steps: int) -> Prepared:
    """`axolotl train` of completions; on a CPU it refuses bfloat16."""
    directory = _alone(home, "axolotl")
    options = {
        "base_model": str(model),
        "datasets": [{"path": str(directory / "documents.jsonl"), "ds_type": "json", "type": "completion"}],
        "dataset_prepared_path": str(directory / "prepared"),
        "sequence_len": LENGTH,
        "sample_packing": True,
        "pad_to_sequence_len": True,
        "attn_implementation": "sdpa",
        "bf16": False,
        "gradient_checkpointing": False,
        "micro_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "learning_rate": RATE,
        "optimizer": "adamw_torch_fused",
        "lr_scheduler": "linear",
        "max_steps": steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_tensorboard": False,
        "output_dir": str(out),
    }
    (directory / "options.yaml").write_text(json.dumps(options))
    return ["-m", "axolotl.cli.train", str(directory / "options.yaml")], "'loss'"


def litgpt(home: Path, model: Path, out: Path, steps: int) -> Prepared:
    """`litgpt pretrain`, which compiles the model."""
    directory = _alone(home, "litgpt")
    texts = directory / "texts"
    texts.mkdir(exist_ok=True)
    lines = (directory / "documents.jsonl").read_text().splitlines()
    (texts / "0.txt").write_text("\n".join(json.loads(line)["text"] for line in lines[:4000]))
    (texts / "1.txt").write_text("\n".join(json.loads(line)["text"] for line in lines[-200:]))
    options = {
        "model_name": "llama",
        "model_config": {
            "name": "llama",
            "block_size": LENGTH,
            "padded_vocab_size": VOCABULARY,
            "n_layer": LLAMA["num_hidden_layers"],
            "n_head": LLAMA["num_attention_heads"],
            "n_embd": LLAMA["hidden_size"],
            "intermediate_size": LLAMA["intermediate_size"],
            "mlp_class_name": "LLaMAMLP",
            "norm_class_name": "RMSNorm",
            "rotary_percentage": 1.0,
            "parallel_residual": False,
            "bias": False,
        },
        "tokenizer_dir": str(model),
        "out_dir": str(out),
        "precision": "bf16-mixed",
        "logger_name": "csv",
        "devices": 1,
        "data": {"class_path": "TextFiles", "init_args": {"train_data_path": str(texts), "num_workers": 1}},
        "train": {
            "micro_batch_size": ROWS,
            "global_batch_size": ROWS,
            "max_seq_length": LENGTH,
            "max_tokens": steps * ROWS * LENGTH,
            "log_interval": 1,
            "save_interval": None,
            "tie_embeddings": True,
        },
        "eval": {"interval": 10**6, "initial_validation": False, "final_validation": False},
    }
    (directory / "options.yaml").write_text(json.dumps(options))
    return ["-m", "litgpt", "pretrain", "--config", str(directory / "options.yaml")], "iter time"


def _alone(home: Path, name: str) -> Path:
    """A directory that holds the documents and nothing else."""
    directory = home / name
    directory.mkdir(exist_ok=True)
    (directory / "documents.jsonl").write_bytes((home / "documents.jsonl").read_bytes())
    return directory


PEERS: dict[str, Callable[[Path, Path, Path, int], Prepared]] = {
    "trl": trl,
    "llamafactory": llamafactory,
    "axolotl": axolotl,
    "litgpt": litgpt,
}
