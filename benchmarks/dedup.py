"""Near-duplicate detection against an exhaustive comparison of all pairs, beside datasketch and rensa.

    python benchmarks/dedup.py [--json] [--peers PYTHON] [--texts FILE.jsonl]     (about a minute; writes dedup.json)

5,000 documents: passages of the standard library's own texts and sources (and of FILE's column `text`), and edited
copies of them whose Jaccard similarity over five-word shingles spreads from .5 to 1. The truth is the exact similarity
of every pair, from a sparse matrix product. `recall` and `precision` are of rows: all of a cluster at threshold .8 but
its first are to be dropped. `pairs_resolved` is the share of true pairs of which not both rows are kept, which is also
fair to a detector (rensa's) that compares with kept rows only, and so keeps both ends of a chain.

Each contender runs in a process of its own on one core, alternating, from texts in memory; peers that this interpreter
does not have are looked for in PYTHON. All shingle the same words; datasketch and rensa are used as their READMEs say.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

DOCUMENTS, THRESHOLD, WORDS, PERMUTATIONS, REPEATS = 5_000, 0.8, 5, 128, 5
SHARDS = 8
ONE_CORE = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has datasketch and rensa")
    parser.add_argument("--texts", type=Path, help="JSON Lines with further base texts in the column `text`")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        name, path = arguments.contender
        sys.stdout.write(json.dumps(CONTENDERS[name](json.loads(Path(path).read_text()))))
        return
    result = measured(documents(arguments.texts), arguments.peers)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for row in result["rows"]:
        print(f"{row['contender']:<12}{row['metric']:<18}{row['median']:9.3f}   {row['low']:.3f} to {row['high']:.3f}")


def measured(texts: Sequence[str], peers: str) -> dict[str, Any]:
    pairs = truth(texts)
    expected = all_but_first(len(texts), pairs)
    size = sum(len(text.encode()) for text in texts)
    values: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.json")
        corpus.write_text(json.dumps(texts))
        for _ in range(REPEATS):
            for name in CONTENDERS:
                found = run(name, corpus, sys.executable) or run(name, corpus, peers)
                if found is None:
                    continue
                for metric, value in judged(found, expected, pairs, size).items():
                    values.setdefault((name, metric), []).append(value)
    rows = [
        {"contender": name, "metric": metric, "median": statistics.median(v), "low": min(v), "high": max(v)}
        for (name, metric), v in values.items()
    ]
    speeds = {row["contender"]: row["median"] for row in rows if row["metric"] == "sketch_mb_per_s"}
    totals = {row["contender"]: row["median"] for row in rows if row["metric"] == "total_mb_per_s"}
    ratios = {f"flywheel / {n}, sketching": speeds["flywheel"] / v for n, v in speeds.items() if n != "flywheel"}
    ratios |= {f"flywheel / {n}, total": totals["flywheel"] / v for n, v in totals.items() if n != "flywheel"}
    corpus_facts = {"documents": len(texts), "bytes": size, "true_pairs": len(pairs), "true_duplicates": len(expected)}
    return {"machine": _machine(), "corpus": corpus_facts, "rows": rows, "ratios": ratios}


def run(name: str, corpus: Path, python: str) -> dict[str, Any] | None:
    """What a contender measured in its own process, or None where it does not import."""
    import os

    command = [python, __file__, "--contender", name, str(corpus)]
    done = subprocess.run(command, env={**os.environ, **ONE_CORE}, capture_output=True, text=True)
    if done.returncode and "ModuleNotFoundError" not in done.stderr:
        raise RuntimeError(f"{name}: {done.stderr}")
    return None if done.returncode else json.loads(done.stdout)


def judged(found: dict[str, Any], expected: set[int], pairs: Sequence[tuple[int, int]], size: int) -> dict[str, float]:
    dropped = set(found["dropped"])
    return {
        "recall": len(dropped & expected) / len(expected),
        "precision": len(dropped & expected) / max(1, len(dropped)),
        "pairs_resolved": sum(a in dropped or b in dropped for a, b in pairs) / len(pairs),
        "sketch_mb_per_s": size / 1e6 / found["sketch_seconds"],
        "decide_seconds": found["decide_seconds"],
        "total_mb_per_s": size / 1e6 / (found["sketch_seconds"] + found["decide_seconds"]),
    }


# ---------------------------------------------------------------- documents and truth


def documents(more: Path | None) -> list[str]:
    """Passages and edited copies of them, in a seeded order."""
    rng, found = random.Random(0), list[str]()
    bases = passages(more)
    rng.shuffle(bases)
    for words in bases:
        found.append(" ".join(words))
        for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
            found.append(" ".join(edited(words, rng.uniform(0.5, 1.0), rng)))
        if len(found) >= DOCUMENTS:
            break
    found = found[:DOCUMENTS]
    rng.shuffle(found)
    return found


def passages(more: Path | None) -> list[list[str]]:
    """Runs of 20 to 400 words of real texts, none of which overlap."""
    import sysconfig

    rng, found = random.Random(1), list[list[str]]()
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(library.glob("*.py"))]
    texts.append((library / "pydoc_data" / "topics.py").read_text(encoding="utf-8"))
    if more is not None:
        texts += [json.loads(line)["text"] for line in more.read_text().splitlines()]
    for text in texts:
        words, start = text.split(), 0
        while start + 20 <= len(words):
            end = start + rng.randint(20, 400)
            found.append(words[start:end])
            start = end
    return found


def edited(words: Sequence[str], similarity: float, rng: random.Random) -> list[str]:
    """A copy with about as many words replaced, removed or put in as bring its similarity down to the given one."""
    copy = list(words)
    for _ in range(round(len(copy) * (1 - similarity) / (1 + similarity) / WORDS)):
        place = rng.randrange(len(copy))
        word = f"{rng.choice(words)}{rng.randrange(1_000)}"
        copy[place : place + rng.choice((0, 1, 1))] = rng.choice(([word], [word], []))
    return copy


def shingle_sets(texts: Sequence[str]) -> Iterator[set[str]]:
    """The set of five-word shingles of each text; a word is a run of word characters in lower case."""
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        yield {" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))} if words else set()


def truth(texts: Sequence[str]) -> list[tuple[int, int]]:
    """All pairs of rows at least THRESHOLD similar."""
    import numpy as np
    from scipy import sparse

    numbers: dict[str, int] = {}
    rows, columns = list[int](), list[int]()
    for row, found in enumerate(shingle_sets(texts)):
        columns += [numbers.setdefault(shingle, len(numbers)) for shingle in found]
        rows += [row] * len(found)
    matrix = sparse.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)))
    common = sparse.triu(matrix @ matrix.T, 1).tocoo()
    sizes = np.asarray(matrix.sum(axis=1)).ravel()
    similar = common.data / (sizes[common.row] + sizes[common.col] - common.data) >= THRESHOLD
    return list(zip(common.row[similar].tolist(), common.col[similar].tolist(), strict=True))


def all_but_first(number: int, pairs: Sequence[tuple[int, int]]) -> set[int]:
    """Rows that are not the first of their cluster, which pairs make."""
    parents = list(range(number))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parents[high] = low
    return {row for row in range(number) if root(row) != row}


# ---------------------------------------------------------------- contenders


def flywheel(texts: list[str]) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from flywheel.process.duplicates import near_dedup, sketch
    from flywheel.record import Record

    rows = [Record(id=str(number), text=text) for number, text in enumerate(texts)]
    sketch(rows[:10])
    with tempfile.TemporaryDirectory() as folder:
        paths, start = list[Path](), time.perf_counter()
        for number, part in enumerate(np.array_split(np.arange(len(rows)), SHARDS)):
            table = sketch(rows[part[0] : part[-1] + 1])
            paths.append(Path(folder, str(number)))
            with pa.OSFile(str(paths[-1]), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        sketched = time.perf_counter()
        codes = near_dedup(THRESHOLD).decide(paths, 0)
        return outcome(start, sketched, np.flatnonzero(np.concatenate(codes)).tolist())


def datasketch(texts: list[str]) -> dict[str, Any]:
    from datasketch import MinHash, MinHashLSH

    start, signatures = time.perf_counter(), []
    for found in shingle_sets(texts):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([shingle.encode() for shingle in found])
        signatures.append(signature)
    sketched = time.perf_counter()
    index, pairs = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), list[tuple[int, int]]()
    for row, signature in enumerate(signatures):
        pairs += [(row, int(other)) for other in index.query(signature)]
        index.insert(row, signature)
    return outcome(start, sketched, sorted(all_but_first(len(texts), pairs)))


def rensa(texts: list[str]) -> dict[str, Any]:
    from rensa import RMinHash, RMinHashDeduplicator

    start = time.perf_counter()
    sets = [list(found) for found in shingle_sets(texts)]
    signatures = RMinHash.from_token_sets(sets, num_perm=PERMUTATIONS, seed=42)
    sketched = time.perf_counter()
    deduplicator = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PERMUTATIONS, use_lsh=True)
    kept = [deduplicator.add(str(row), signature) for row, signature in enumerate(signatures)]
    return outcome(start, sketched, [row for row, keep in enumerate(kept) if not keep])


def outcome(start: float, sketched: float, dropped: list[int]) -> dict[str, Any]:
    end = time.perf_counter()
    return {"sketch_seconds": sketched - start, "decide_seconds": end - sketched, "dropped": dropped}


CONTENDERS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "flywheel": flywheel,
    "datasketch": datasketch,
    "rensa": rensa,
}


def _machine() -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.machine import machine

    return machine()


if __name__ == "__main__":
    main()
