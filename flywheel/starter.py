"""`flywheel init`: look at a user's data and write a commented recipe for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from flywheel import recipe_file
from flywheel.errors import SourceError

TEXT, TABLES = {".txt", ".md"}, {".jsonl", ".csv", ".parquet"}
ROWS_LOOKED_AT = 50
SMALL_BYTES = 2_000_000
"""Below this, fewer steps and a smaller vocabulary are enough."""


@dataclass(frozen=True)
class Look:
    """What was seen."""

    modality: str
    source: Mapping[str, Any]
    seen: str
    bytes: int


def write(data: Path, output: Path) -> None:
    """Write a recipe for `data` to `output`. Raises SourceError where nothing usable is seen, or `output` exists."""
    if output.exists():
        raise SourceError(f"recipe {output}", found="the file exists", remedy="name another file with --output")
    text = recipe(look(data), data)
    try:
        output.write_text(text)
    except OSError as error:
        raise SourceError(f"recipe {output}", found=str(error.strerror), expected="a place to write it") from error
    recipe_file.load(output)


def look(data: Path) -> Look:
    """The modality and the source that fit a file or a directory."""
    if not data.exists():
        raise SourceError(f"data {data}", found="nothing there", expected="a file or a directory")
    files = [data] if data.is_file() else sorted(p for p in data.rglob("*") if p.is_file())
    sizes: Counter[str] = Counter()
    for file in files:
        sizes[file.suffix.lower()] += file.stat().st_size
    usable = {s: n for s, n in sizes.items() if s == ".py" or s in TEXT | TABLES}
    if not usable:
        found = ", ".join(f"{s or 'no suffix'}" for s, _ in sizes.most_common(5)) or "an empty directory"
        raise SourceError(f"data {data}", found=found, expected="files of .py, .txt, .md, .jsonl, .csv or .parquet")
    suffix = max(usable, key=lambda s: usable[s])
    seen = f"{sum(f.suffix.lower() == suffix for f in files)} {suffix} file(s), {usable[suffix] / 1e6:.1f} MB"
    if suffix == ".py":
        root = data if data.is_dir() else data.parent
        return Look("code", {"type": "code", "path": str(root)}, seen, usable[suffix])
    source: dict[str, Any] = {"type": "text", "path": str(data)}
    if suffix in TABLES:
        source["column"] = _column(next(f for f in files if f.suffix.lower() == suffix))
    return Look("text_causal", source, seen, usable[suffix])


def recipe(seen: Look, data: Path) -> str:
    """The YAML text, with a comment where a user would want to change something."""
    name = "".join(c if c.isalnum() else "-" for c in data.resolve().stem.lower()).strip("-")[:60] or "my-model"
    steps, vocabulary = (200, 1024) if seen.bytes < SMALL_BYTES else (900, 4096)
    source = yaml.safe_dump(dict(seen.source), sort_keys=False).strip().replace("\n", "\n      ")
    return f"""\
# {data}: {seen.seen}. Every key is explained by `flywheel schema`.
name: {name}
objective:
  metric: bits_per_byte                       # lower is better
  thresholds:
    bits_per_byte: {{beats: baseline}}          # promoted only when it is clearly better than an n-gram model
data:
  sources:
    - {source}
      license: unknown                        # SPDX identifier; it goes into the model card
  process: [normalize_newlines, exact_dedup, near_dedup: {{threshold: 0.8}}]
  split: {{heldout: 0.1}}                       # share kept for evaluation
  validate:
    expectations:
      - expect_column_values_to_be_unique: {{column: digest}}
model:
  modality: {seen.modality}                   # from scratch; `path: DIR` starts from a checkpoint
  tokenizer: {{vocab_size: {vocabulary}}}
train: {{max_steps: {steps}}}
evaluate: {{baselines: [ngram]}}
"""


def _column(file: Path) -> str:
    """The column with the longest texts among the first rows."""
    lengths: Counter[str] = Counter()
    for row in islice(_rows(file), ROWS_LOOKED_AT):
        lengths.update({k: len(v) for k, v in row.items() if isinstance(k, str) and isinstance(v, str)})
    if not lengths:
        raise SourceError(f"data {file}", found="no column of text", expected="a column with strings")
    return lengths.most_common(1)[0][0]


def _rows(file: Path) -> Iterable[Mapping[str, Any]]:
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        yield from next(pq.ParquetFile(file).iter_batches(batch_size=ROWS_LOOKED_AT)).to_pylist()
        return
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        if file.suffix.lower() == ".csv":
            import csv

            yield from csv.DictReader(lines)
            return
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row
