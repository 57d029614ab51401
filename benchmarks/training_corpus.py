"""What the contenders of benchmarks/training.py learn: documents, a tokenizer, and the models that they start from.

Documents are the top-level functions and classes of the standard library and, where there are the texts of the tests
(FLYWHEEL_TEST_DATA), speeches of plays, instructions and web pages: those of at most 510 tokens, shuffled. Every
contender gets the same token ids, each document between two end marks.
"""

from __future__ import annotations

import ast
import json
import os
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("FLYWHEEL_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
LENGTH, VOCABULARY, HELD_OUT = 512, 8192, 224
"""Tokens of a row, tokens of the tokenizer, documents that are held out."""
LLAMA = {
    "modality": "text_causal",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": LENGTH,
    "tokenizer": {"vocab_size": VOCABULARY},
}
"""13.8 million parameters."""


def write(home: Path, seeds: int) -> dict[str, Any]:
    """Write `rows/` for flywheel, `ids.json` and `documents.jsonl` for the others, and `model-SEED/`; what is in it."""
    from flywheel.modalities import decoder_model
    from flywheel.modalities.text_causal import TextCausal
    from flywheel.recipe_models import TextCausalModel
    from flywheel.record import Record, write_rows

    texts = [*code(), *prose()]
    random.Random(0).shuffle(texts)
    config = TextCausalModel.model_validate(LLAMA)
    for seed in range(seeds):
        model = decoder_model.from_scratch(config, texts, seed)
        TextCausal().save(model, home / f"model-{seed}")
    found = [(t, ids.tolist()) for t, ids in zip(texts, decoder_model.documents(model, texts), strict=True)]
    kept = [(text, ids) for text, ids in found if 8 <= len(ids) <= LENGTH]
    parts = {"heldout": kept[:HELD_OUT], "train": kept[HELD_OUT:]}
    for name, part in parts.items():
        rows = (Record(id=f"{name}-{i}", text=text) for i, (text, _) in enumerate(part))
        (home / "rows").mkdir(exist_ok=True)
        write_rows(home / "rows" / f"{name}.parquet", rows)
    (home / "ids.json").write_text(json.dumps({name: [ids for _, ids in part] for name, part in parts.items()}))
    lines = (json.dumps({"text": text}) + "\n" for text, _ in parts["train"])
    (home / "documents.jsonl").write_text("".join(lines))
    sizes = [len(ids) for _, ids in parts["train"]]
    return {
        "documents": len(sizes),
        "tokens": sum(sizes),
        "mean_tokens": sum(sizes) / len(sizes),
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "texts_of_the_tests": DATA.is_dir(),
    }


def code() -> Iterator[str]:
    """Top-level functions and classes of the standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(file.parts):
            continue
        try:
            source = file.read_text()
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield ast.get_source_segment(source, node) or ""


def prose() -> Iterator[str]:
    """Speeches, instructions with their answers, and web pages; nothing where the texts are not there."""
    if not DATA.is_dir():
        return
    yield from (DATA / "shakespeare.txt").read_text().split("\n\n")
    for row in json.loads((DATA / "alpaca.json").read_text()):
        yield "\n".join(filter(None, (row["instruction"], row["input"], row["output"])))
    for line in (DATA / "web.jsonl").read_text().splitlines():
        yield json.loads(line)["text"]
