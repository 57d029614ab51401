"""The preparation of text beside `datasets.map`, datatrove and data-juicer: one corpus, the same operations, one core.

    python benchmarks/data.py [--json] [--peers PYTHON] [--mb 100] [--repeats 3] [--text FILE.jsonl]

Operations: fix unicode and white space, keep English, mask e-mail and IPv4 addresses, drop exact and near duplicates,
tokenise with one tokenizer that was trained on the corpus. `data_corpus.py` says what is in that, and `data_peers.py`
what the peers run. Each contender has a process of its own on one core, alternating; PYTHON is an interpreter that has
the peers.

`mb_per_s` counts bytes of text read by the time from the first file to the last token, imports left out;
`mb_per_cpu_s` counts them by processor time, which others on the machine disturb less. `peak_memory_mb` is what the
process and its children hold in memory at most, pages that are shared counted once and files that are mapped left out.
For flywheel this ends in rows ready for training, with a split on top. `again` is a second run on unchanged data, and
`one_added_file` a run after one file was added, beside `that_file_alone`; by the functions (`api`) and by
`flywheel data check` (`cli`). `equal` says, for each peer, which documents both keep, and how many of them have the
same text and the same tokens.

It takes about twenty minutes at 100 MB and writes data.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import data_corpus, data_peers  # noqa: E402
from benchmarks.machine import machine  # noqa: E402

OURS, PEERS = "flywheel", tuple(data_peers.CONTENDERS)
VOCABULARY, SAMPLE = 16_000, 10_000
"""Tokens of the tokenizer, and documents that it is trained on."""
ADDED = 2 << 20
"""Bytes of the file that is added."""
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "ARROW_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
PROCESS = [
    "fix_unicode",
    "normalize_whitespace",
    {"language_filter": {"keep": [data_peers.LANGUAGE], "min_score": data_peers.SCORE}},
    {"mask_pii": {"kinds": ["email", "ipv4"]}},
    "exact_dedup",
    {"near_dedup": {"threshold": data_peers.THRESHOLD}},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--mb", type=float, default=100, help="megabytes of text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--text", type=Path, help="JSON Lines with real texts to mix in, in the column `text`")
    parser.add_argument("--run", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--again", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        data_peers.save(arguments.run[2], *flywheel(*arguments.run))
    elif arguments.again:
        sys.stdout.write(json.dumps(prepared_seconds(*arguments.again)))
    else:
        result = measured(arguments)
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result) if arguments.json else table(result))


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    values: dict[tuple[str, str], list[float]] = {}
    kept: dict[str, Kept] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        facts = data_corpus.write(home / "corpus", int(arguments.mb * 1e6), arguments.text)
        train_tokenizer(home)
        for _ in range(arguments.repeats):
            for name in (OURS, *PEERS):
                found = {} if name in missing else run(name, home, arguments.peers)
                if "missing" in found:
                    missing[name] = found["missing"]
                for metric, value in figures(found, facts["bytes"]).items() if "stages" in found else ():
                    values.setdefault((name, metric), []).append(value)
                if "stages" in found and name not in kept:
                    kept[name] = Kept.read(home / "out", home / "corpus")
        for (contender, metric), seconds in again(home, arguments.repeats).items():
            values[contender, metric] = seconds
    rows = [
        {"contender": name, "metric": metric, "median": statistics.median(v), "low": min(v), "high": max(v)}
        for (name, metric), v in values.items()
    ]
    return {
        "machine": machine(),
        "corpus": facts,
        "rows": rows,
        "ratios": ratios(rows),
        "equal": {name: kept[OURS].beside(kept[name]) for name in PEERS if name in kept},
        "missing": missing,
    }


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """flywheel's speed by that of each peer, and each peer's memory by flywheel's; more than 1 is better."""
    median = {(row["contender"], row["metric"]): row["median"] for row in rows}
    found = {}
    for name in (p for p in PEERS if (p, "mb_per_s") in median):
        for metric in ("mb_per_s", "mb_per_cpu_s"):
            found[f"{OURS} / {name}, {metric}"] = median[OURS, metric] / median[name, metric]
        found[f"{name} / {OURS}, peak_memory_mb"] = median[name, "peak_memory_mb"] / median[OURS, "peak_memory_mb"]
    for metric in ("mb_per_s", "mb_per_cpu_s"):
        best = max((median[p, metric] for p in PEERS if (p, metric) in median), default=None)
        if best:
            found[f"{OURS} / best peer, {metric}"] = median[OURS, metric] / best
    return found


def table(result: Mapping[str, Any]) -> str:
    lines = [
        f"{row['contender']:<14}{row['metric']:<34}{row['median']:10.2f}   {row['low']:.2f} to {row['high']:.2f}"
        for row in result["rows"]
    ]
    lines += [f"{name:<48}{value:10.2f}" for name, value in result["ratios"].items()]
    lines += [f"{name}: {json.dumps(shares)}" for name, shares in result["equal"].items()]
    return "\n".join([*lines, *(f"{name}: {why}" for name, why in result["missing"].items())])


# ---------------------------------------------------------------- runs


def run(name: str, home: Path, peers: str) -> dict[str, Any]:
    """One contender in a process of its own on one core: `stages`, `cpu` and `peak` bytes; or what is `missing`."""
    out = home / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    places = [str(home / "corpus"), str(home / "tokenizer.json"), str(out)]
    command = [peers, str(Path(data_peers.__file__)), name, *places]
    if name == OURS:
        command = [sys.executable, __file__, "--run", *places]
    core = max(os.sched_getaffinity(0))
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=log
        )
        peak = watched(process)
    if process.returncode:
        last = (home / "log").read_text().strip().splitlines()[-1:]
        return {"missing": f"ended with code {process.returncode}: {' '.join(last)[:300]}"}
    return {**json.loads((out / "result.json").read_text()), "peak": peak}


def watched(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the bytes that it and its children held at most."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(held, family(process.pid))))
        time.sleep(0.2)
    return peak


def family(pid: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def held(pid: int) -> int:
    """Bytes of a process that are not those of a file; shared ones by halves, thirds, ..."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def figures(found: Mapping[str, Any], size: int) -> dict[str, float]:
    return {
        "mb_per_s": size / 1e6 / sum(found["stages"].values()),
        "mb_per_cpu_s": size / 1e6 / found["cpu"],
        "peak_memory_mb": found["peak"] / 1e6,
        **{f"seconds_{stage}": seconds for stage, seconds in found["stages"].items()},
    }


def train_tokenizer(home: Path) -> None:
    """A tokenizer as this project makes it, in tokenizer.json."""
    from flywheel.modalities.decoder_model import train_tokenizer
    from flywheel.recipe_models import TextCausalModel

    texts = [text for _, text in islice(corpus_texts(home / "corpus"), SAMPLE)]
    config = TextCausalModel.model_validate({"modality": "text_causal", "tokenizer": {"vocab_size": VOCABULARY}})
    train_tokenizer(texts, config).backend_tokenizer.save(str(home / "tokenizer.json"))


def corpus_texts(corpus: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(corpus.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            document = json.loads(line)
            yield document["id"], document["text"]


# ---------------------------------------------------------------- equality


class Kept:
    """What a contender kept: id → text and hash of its tokens; and of flywheel, why it dropped the others."""

    def __init__(self, rows: Mapping[str, tuple[str, str]], reasons: Mapping[str, str]) -> None:
        self.rows, self.reasons = rows, reasons

    @classmethod
    def read(cls, out: Path, corpus: Path) -> Kept:
        documents = map(json.loads, (out / "kept.jsonl").read_text().splitlines())
        rows = {d["id"]: (d["text"], d["tokens"]) for d in documents}
        left = out / "prepare" / "left.jsonl"
        lines = map(json.loads, left.read_text().splitlines()) if left.exists() else ()
        names = {f"{file}:{number}": i for file, number, i in numbered(corpus)}
        return cls(rows, {names[line["path"]]: line["reason"] for line in lines})

    def beside(self, other: Kept) -> dict[str, Any]:
        """Shares of documents; why flywheel alone drops some, and why the texts of the same documents differ."""
        both = self.rows.keys() & other.rows.keys()
        pairs = [(self.rows[i], other.rows[i]) for i in both]
        return {
            "kept": len(self.rows),
            "kept_by_peer": len(other.rows),
            "kept_by_both_of_either": len(both) / len(self.rows.keys() | other.rows.keys()),
            "dropped_by_peer_alone": len(self.rows.keys() - other.rows.keys()),
            "dropped_by_flywheel_alone": dict(Counter(self.reasons[i] for i in other.rows.keys() - self.rows.keys())),
            "same_text_of_both": sum(a[0] == b[0] for a, b in pairs) / len(both),
            "same_tokens_of_same_text": sum(a[1] == b[1] for a, b in pairs if a[0] == b[0])
            / max(1, sum(a[0] == b[0] for a, b in pairs)),
            "different_texts": dict(Counter(difference(a[0], b[0]) for a, b in pairs if a[0] != b[0])),
        }


def difference(ours: str, theirs: str) -> str:
    """Where two texts part: at an address that one of them masks, at white space, or elsewhere."""
    parted = (place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    start = next(parted, min(len(ours), len(theirs)))
    near = (ours[max(0, start - 24) : start + 8], theirs[max(0, start - 24) : start + 8])
    for name, sign in (("email", "<EMAIL>"), ("ipv4", "<IPV4>")):
        if any(sign in part for part in near):
            return name
    return "white space" if ours.split() == theirs.split() else "other"


# ---------------------------------------------------------------- flywheel


def flywheel(corpus: Path, tokenizer: Path, out: Path) -> tuple[dict[str, Any], Iterator[tuple[str, str, list[int]]]]:
    """Ingest, prepare and encode as a run does, in one worker process."""
    import torch
    from transformers import PreTrainedTokenizerFast

    from flywheel.modalities.base import Model
    from flywheel.modalities.decoder_model import tokenise
    from flywheel.modalities.text_causal import TextCausal
    from flywheel.record import read_rows

    end = "<|endoftext|>"
    made = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), bos_token=end, eos_token=end, pad_token=end)
    model = Model(torch.nn.Module(), made)
    clock = data_peers.Clock()
    prepared(corpus, out, clock)
    rows = [row for side in ("train", "heldout") for row in read_rows(out / "prepare" / side)]
    TextCausal().encode(model, rows, 512)
    clock("tokenise")
    result = clock.result()
    ids = tokenise(model, [row.text or "" for row in rows])
    names = {f"{file}:{number}": i for file, number, i in numbered(corpus)}
    kept = ((names[row.origin["path"]], row.text or "", tokens.tolist()) for row, tokens in zip(rows, ids, strict=True))
    return result, kept


def numbered(corpus: Path) -> Iterator[tuple[str, int, str]]:
    for file in sorted(corpus.glob("*.jsonl")):
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            yield file.name, number, json.loads(line)["id"]


def prepared(corpus: Path, out: Path, clock: Callable[[str], None]) -> None:
    """Ingest and prepare with the shards of `out`/shards, by one worker."""
    from flywheel import prepare, shards
    from flywheel.recipe import Recipe
    from flywheel.sources import base
    from flywheel.workers import Pool

    recipe = Recipe.model_validate(written(corpus))
    cache = shards.Cache(out / "shards")
    for step in ("ingest", "prepare"):
        shutil.rmtree(out / step, ignore_errors=True)
        (out / step).mkdir(parents=True)
    with Pool(1) as pool:
        base.ingest(base.Ingest(recipe.data.sources, {}, cache, pool), out / "ingest")
        clock("ingest")
        prepare.prepare(recipe, out / "ingest" / "rows", out / "prepare", cache, pool)
    clock("prepare")


def written(corpus: Path) -> dict[str, Any]:
    """The recipe."""
    return {
        "name": "benchmark",
        "objective": {"metric": "bits_per_byte"},
        "data": {
            "sources": [{"type": "files", "path": str(corpus), "name": "corpus"}],
            "process": PROCESS,
            "split": {"heldout": 0.01, "by": "id"},
        },
        "model": {"modality": "text_causal"},
    }


def prepared_seconds(corpus: Path, out: Path) -> dict[str, float]:
    """Seconds of one run by the functions, imports left out."""
    import flywheel.prepare
    import flywheel.sources.base
    import flywheel.sources.files  # noqa: F401

    clock = data_peers.Clock()
    prepared(corpus, out, clock)
    return {"seconds": sum(clock.stages.values())}


def again(home: Path, repeats: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of runs on unchanged data, with one more file, and of that file alone."""
    corpus, alone = home / "corpus", home / "alone"
    values: dict[tuple[str, str], list[float]] = {}
    data_corpus.write(alone, ADDED, None, seed=1)
    (file,) = alone.glob("*.jsonl")
    for by, seconds in (("api", api_seconds), ("cli", cli_seconds)):
        state = home / by
        seconds(corpus, state)
        for repeat in range(repeats):
            record = values.setdefault
            record((OURS, f"again_seconds_{by}"), []).append(seconds(corpus, state))
            added = corpus / "zz-added.jsonl"
            shutil.copyfile(file, added)
            fresh = home / f"{by}-{repeat}"
            shutil.copytree(state, fresh, copy_function=os.link)
            record((OURS, f"one_added_file_seconds_{by}"), []).append(seconds(corpus, fresh))
            added.unlink()
            shutil.rmtree(fresh)
            record((OURS, f"that_file_alone_seconds_{by}"), []).append(seconds(alone, fresh))
            shutil.rmtree(fresh)
    return values


def api_seconds(corpus: Path, state: Path) -> float:
    command = [sys.executable, __file__, "--again", str(corpus), str(state)]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True)
    return float(json.loads(done.stdout)["seconds"])


def cli_seconds(corpus: Path, state: Path) -> float:
    """The whole command, from its start to its end."""
    import yaml

    recipe = corpus.parent / f"{corpus.name}.yaml"
    recipe.write_text(yaml.safe_dump(written(corpus)))
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "flows.cli", "data", "check", str(recipe), "--json"],
        env={**os.environ, "FLYWHEEL_HOME": str(state)},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
