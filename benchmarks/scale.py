"""Memory of a data run against the size of the data: is it bounded by the shard?

    python benchmarks/scale.py [--gigabytes 0.5 1 5] [--directory DIRECTORY] [--workers 2] [--json]
                                               (about two minutes for each gigabyte on two cores; writes scale.json)

For each size a corpus of JSON Lines is generated in files of 62.5 MB (80 for 5 GB): documents of 0.4 to 20 kB, of which
3 % are copies of an earlier one, 3 % such copies with a few words changed, and 2 % too short. `flywheel data check`
reads, normalises, filters, deduplicates (exactly and nearly), splits and validates it in a fresh tree of processes. Ten
times a second the memory of each process of the tree is read from the kernel: `anonymous` is what only it holds,
`resident` also counts pages of files that it has mapped, which the kernel takes back when it needs them. The disk must
hold about five times the corpus; everything is removed in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml
from machine import machine

FILE, SENTENCES, SECONDS = 62_500_000, 200_000, 0.1
COPIES, NEAR_COPIES, SHORT, RECENT = 0.03, 0.03, 0.02, 5_000
DISK = 5
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 1, 5])
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory is made in it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in arguments.gigabytes:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            free = shutil.disk_usage(folder).free
            if free < DISK * size * 1e9:
                sys.exit(f"{size} GB of data need {DISK * size:.0f} GB of disk; {folder} has {free / 1e9:.0f} GB")
            for metric, value in measured(Path(folder), size, arguments.workers).items():
                row = {"contender": f"{size:g} GB", "metric": metric, "median": value, "low": value, "high": value}
                rows.append(row)
                if not arguments.json:
                    print(f"{row['contender']:>8}  {metric:<34}{value:12.1f}", flush=True)
        result = {"machine": machine(), "workers": arguments.workers, "rows": rows, "ratios": ratios(rows)}
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")


def measured(folder: Path, size: float, workers: int) -> dict[str, float]:
    """Generate a corpus, check it, and say what that took."""
    corpus = folder / "corpus"
    written = generate(corpus, int(size * 1e9))
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(described(corpus, workers)))
    environment = {**os.environ, "FLYWHEEL_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "data", "check", str(recipe), "--json"]
    started = time.monotonic()
    with (folder / "out.json").open("w") as out, (folder / "err.txt").open("w") as err:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, cwd=folder)
        peaks = watched(process)
    if process.returncode:
        sys.exit((folder / "err.txt").read_text())
    found = json.loads((folder / "out.json").read_text())
    left = sum(sum(found[kind].values()) for kind in ("dropped", "quarantined"))
    if found["read"] != written["rows"] or found["kept"] + left != found["read"]:
        sys.exit(f"rows do not add up: {written['rows']} written, {found}")
    store = sum(inode.st_size for inode in {f.stat().st_ino: f.stat() for f in (folder / "home").rglob("*")}.values())
    return {
        "corpus, MB": written["bytes"] / 1e6,
        "rows": float(written["rows"]),
        "kept": float(found["kept"]),
        **{f"dropped, {reason}": float(number) for reason, number in found["dropped"].items()},
        "minutes": (time.monotonic() - started) / 60,
        "MB/s": written["bytes"] / 1e6 / (time.monotonic() - started),
        "store, MB": store / 1e6,
        **{f"{role} peak, {kind} MB": value / 1e6 for (role, kind), value in sorted(peaks.items())},
    }


def described(corpus: Path, workers: int) -> dict[str, Any]:
    """The recipe of a run."""
    return {
        "name": "scale",
        "objective": {"metric": "bits_per_byte", "thresholds": {"bits_per_byte": {"beats": "before"}}},
        "data": {
            "sources": [{"type": "files", "path": str(corpus), "license": "CC0-1.0"}],
            "process": ["normalize_whitespace", {"length_filter": {"min": 200}}, "exact_dedup", "near_dedup"],
            "split": {"heldout": 0.05, "by": "id"},
            "validate": {
                "expectations": [
                    {"expect_column_values_to_be_between": {"column": "length", "min_value": 200}},
                    {"expect_column_values_to_be_unique": {"column": "digest"}},
                    {"expect_no_train_heldout_leakage": {}},
                ]
            },
        },
        "model": {"modality": "text_causal"},
        "resources": {"workers": workers},
    }


# ---------------------------------------------------------------- the corpus


def generate(folder: Path, size: int) -> dict[str, int]:
    """Write some `size` bytes of JSON Lines; the same ones each time."""
    folder.mkdir()
    rng, rows, total = random.Random(0), 0, 0
    documents = texts(rng)
    for number, end in enumerate([*range(FILE, size, FILE), size]):
        with (folder / f"part-{number:03d}.jsonl").open("w") as file:
            while total < end:
                total += file.write(f'{{"text": "{next(documents)}"}}\n')
                rows += 1
    return {"rows": rows, "bytes": total}


def texts(rng: random.Random) -> Iterator[str]:
    """Documents of sentences that many share, and copies of recent ones. Plain ASCII: JSON needs no escapes."""
    words = ["".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.randint(2, 10))) for _ in range(30_000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    drawn = iter(rng.choices(words, weights, k=SENTENCES * 24))
    pool = [" ".join(next(drawn) for _ in range(rng.randint(5, 20))).capitalize() + "." for _ in range(SENTENCES)]
    recent: list[str] = []
    while True:
        kind = rng.random()
        if recent and kind < COPIES:
            yield rng.choice(recent)
        elif recent and kind < COPIES + NEAR_COPIES:
            said = rng.choice(recent).split(" ")
            for _ in range(1 + len(said) // 100):
                said[rng.randrange(len(said))] = rng.choice(words)
            yield " ".join(said)
        elif kind < COPIES + NEAR_COPIES + SHORT:
            yield rng.choice(pool)[:150]
        else:
            text = "  ".join(rng.choices(pool, k=min(250, 5 + int(rng.lognormvariate(3.2, 0.9)))))
            if len(recent) < RECENT:
                recent.append(text)
            else:
                recent[rng.randrange(RECENT)] = text
            yield text


# ---------------------------------------------------------------- the memory of a tree of processes


def watched(process: subprocess.Popen[bytes]) -> dict[tuple[str, str], int]:
    """Peak bytes by role and kind, until the process ends."""
    peaks: dict[tuple[str, str], int] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for one in (root, *root.children(recursive=True)):
            try:
                found, name = memory(one.pid), role(one, root)
            except (OSError, psutil.Error):
                continue
            total += found["anonymous"]
            for kind, value in found.items():
                peaks[name, kind] = max(peaks.get((name, kind), 0), value)
        peaks["all processes", "anonymous"] = max(peaks.get(("all processes", "anonymous"), 0), total)
        time.sleep(SECONDS)
    return peaks


def role(process: psutil.Process, root: psutil.Process) -> str:
    if process.pid == root.pid:
        return "parent"
    command = process.cmdline()
    if "flywheel.workers" in command:
        parent = process.parent()
        return "parser" if parent is not None and "flywheel.workers" in parent.cmdline() else "worker"
    return "Prefect server"


def memory(pid: int) -> dict[str, int]:
    """Bytes as the kernel counts them."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    if "VmRSS" not in status:
        raise OSError("it has ended")
    kilobytes = {"anonymous": "RssAnon", "resident": "VmRSS"}
    return {kind: int(status[key].split()[0]) << 10 for kind, key in kilobytes.items()}


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How each peak grows from the smallest corpus to the others."""
    found: dict[str, float] = {}
    for row in rows:
        first = next(r for r in rows if r["metric"] == row["metric"])
        if "peak" in row["metric"] and row is not first:
            name = f"{row['metric'].removesuffix(' MB')}: {row['contender']} / {first['contender']}"
            found[name] = row["median"] / first["median"]
    return found


if __name__ == "__main__":
    main()
