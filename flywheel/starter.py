"""`flywheel init`: look at a user's data and write a commented recipe for it."""

from __future__ import annotations

import codecs
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from flywheel import recipe_file
from flywheel.confinement import Caps
from flywheel.errors import SourceError
from flywheel.sources.formats import FORMATS
from flywheel.workers import Pool, Request, value

TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx"}
TEXTS = {".txt", ".text", ".md", ".markdown", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson"}
ROWS_LOOKED_AT = 50
LOOKED_AT, BYTES_LOOKED_AT = 1_000, 1 << 20
"""Files, and bytes of each, that must be UTF-8, or the recipe says `encoding: auto`."""
SMALL_BYTES = 2_000_000
"""Below this, fewer steps and a smaller vocabulary are enough."""


DOCUMENTS = """\
objective:
  metric: bits_per_byte                       # lower is better
  thresholds:
    bits_per_byte: {beats: baseline}          # promoted only when it is clearly better than an n-gram model
"""
ANSWERS = """\
objective:
  metric: answer_rouge_l                      # 0 to 1, of greedy answers to held-out questions
  thresholds:
    answer_rouge_l: {min: 0.1}                # raise it to what is good enough
"""


@dataclass(frozen=True)
class Look:
    """What was seen."""

    modality: str
    source: Mapping[str, Any]
    seen: str
    bytes: int
    answered: bool = False
    """Whether rows are pairs or conversations, and not documents."""


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
    usable = {s: n for s, n in sizes.items() if s == ".py" or s in FORMATS}
    if not usable:
        found = ", ".join(f"{s or 'no suffix'}" for s, _ in sizes.most_common(5)) or "an empty directory"
        raise SourceError(
            f"data {data}",
            found=found,
            expected=f"files of .py, {', '.join(FORMATS)}",
            remedy=f"write a recipe by hand: `flywheel data preview {data}` shows it for pictures and recordings;"
            " a database is `{type: sql, url: ..., query: ...}`",
        )
    suffix = max(usable, key=lambda s: usable[s])
    seen = f"{sum(f.suffix.lower() == suffix for f in files)} {suffix} file(s), {usable[suffix] / 1e6:.1f} MB"
    if suffix == ".py":
        root = data if data.is_dir() else data.parent
        return Look("code", {"type": "code", "path": str(root)}, seen, usable[suffix])
    source: dict[str, Any] = {"type": "files", "path": str(data)}
    if suffix in TEXTS and not all(_is_utf8(f) for f in files[:LOOKED_AT] if f.suffix.lower() == suffix):
        source["encoding"] = "auto"
    answered = False
    if suffix in TABLES:
        table = _columns(next(f for f in files if f.suffix.lower() == suffix))
        answered = table["answered"]
        if table["columns"]:
            source["columns"] = table["columns"]
    return Look("text_causal", source, seen, usable[suffix], answered)


def recipe(seen: Look, data: Path) -> str:
    """The YAML text, with a comment where a user would want to change something."""
    name = "".join(c if c.isalnum() else "-" for c in data.resolve().stem.lower()).strip("-")[:60] or "my-model"
    steps, vocabulary = (200, 1024) if seen.bytes < SMALL_BYTES else (900, 4096)
    source = yaml.safe_dump(dict(seen.source), sort_keys=False).strip().replace("\n", "\n      ")
    objective = ANSWERS if seen.answered else DOCUMENTS
    return f"""\
# {data}: {seen.seen}. Every key is explained by `flywheel schema`.
name: {name}
{objective}data:
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
train: {{max_steps: {steps}, max_length: 512}}
{"" if seen.answered else "evaluate: {baselines: [ngram]}" + chr(10)}"""


def _is_utf8(file: Path) -> bool:
    """Whether the start of a file is; one with a byte order mark says by itself what it is."""
    with file.open("rb") as stream:
        start = stream.read(BYTES_LOOKED_AT)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def columns_of(argument: Mapping[str, str]) -> dict[str, Any]:
    """What `columns` has to say for a table: nothing for a layout that is recognised, else where the longest texts are;
    and whether its rows are `answered`.

    Runs in a confined child. Raises SourceError where no column holds text.
    """
    from flywheel.sources import formats
    from flywheel.sources.columns import record_fields
    from flywheel.sources.parsed import Found, Options

    file = Path(argument["file"])
    parse = formats.parser(file.name)
    assert parse is not None  # look() offers known formats alone
    options = Options("auto")
    rows = [row.cells for row in islice(parse(file, options), ROWS_LOOKED_AT) if isinstance(row, Found)]
    fields = [record_fields(cells, {})[0] for cells in rows]
    if any(fields):
        return {"columns": {}, "answered": not any("text" in found for found in fields)}
    lengths: Counter[str] = Counter()
    for cells in rows:
        lengths.update({k: len(v) for k, v in cells.items() if isinstance(v, str)})
    if not lengths:
        raise SourceError(f"data {file}", found="no column of text", expected="a column with strings")
    return {"columns": {"text": lengths.most_common(1)[0][0]}, "answered": False}


def _columns(file: Path) -> dict[str, Any]:
    """A stranger's file is parsed in a confined child."""
    with tempfile.TemporaryDirectory() as scratch, Pool(1) as pool:
        request = Request(f"{__name__}:columns_of", {"file": str(file.resolve())}, Caps(scratch))
        (answer,) = pool([request])
        found: dict[str, Any] = value(answer, f"data {file}")
    return found
