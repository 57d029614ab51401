"""How long `flywheel why` and `flywheel forget` take on a million rows, beside the start of the interpreter.

    python benchmarks/provenance.py [--rows 1000000] [--json]     (some ten minutes; writes benchmarks/provenance.json)

The store is made by `flywheel data check` itself, from generated rows; a version with its lineage is put into the
registry. Every command is timed from outside, its start and MLflow's included.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine
from tests.recipes import write

REPEATS, LIMIT = 5, 5.0
FLYWHEEL = [sys.executable, "-m", "flows.cli"]
SUBJECT = "Zoë Quill-Ostrander"
SENTENCE = f"Last spring {SUBJECT} wrote to the harbour master about the tide tables"


def main() -> None:
    number = int(sys.argv[sys.argv.index("--rows") + 1]) if "--rows" in sys.argv else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {**os.environ, "FLYWHEEL_HOME": str(home / "state")}
        seconds = build(home, number, environment)
        taken = measure(environment)
    result = report(number, seconds, taken)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for row in result["rows"]:
        print(f"{row['contender']:<24}{row['median']:7.2f} {row['metric']:<18} {row['low']:.2f} to {row['high']:.2f}")


def measure(environment: dict[str, str]) -> dict[str, list[tuple[float, float]]]:
    """What each command takes, in turns; `forget` itself comes last, and once."""
    identity = named_row(environment)
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import mlflow, pyarrow": [sys.executable, "-c", "import mlflow, pyarrow.parquet"],
        "why MODEL": [*FLYWHEEL, "why", "wide", "--json"],
        "why --row": [*FLYWHEEL, "why", "wide", "--row", identity, "--json"],
        "why --text, there": [*FLYWHEEL, "why", "wide", "--text", SENTENCE, "--json"],
        "why --text, nearest": [*FLYWHEEL, "why", "wide", "--text", SENTENCE.replace("tide", "time"), "--json"],
        "forget --dry-run": [*FLYWHEEL, "forget", "--subject", SUBJECT, "--dry-run", "--json"],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            taken[name].append(timed(command, environment))
    taken["forget"] = [timed([*FLYWHEEL, "forget", "--subject", SUBJECT, "--json"], environment)]
    return taken


def build(home: Path, number: int, environment: dict[str, str]) -> float:
    """A store with a dataset of so many rows and a registered version that was made from it; returns seconds."""
    started = time.perf_counter()
    (home / "rows").mkdir()
    words = vocabulary()
    for part in range(10):
        with (home / "rows" / f"part-{part}.jsonl").open("w") as file:
            draw = random.Random(part)
            for place in range(number // 10):
                text = " ".join(draw.choices(words, k=45)).capitalize() + "."
                if place % (number // 50) == 7:
                    text = f"{text} {SENTENCE}, {place}."
                file.write(json.dumps({"text": text}) + "\n")
    recipe = write(home / "r.yaml", wide(home / "rows"))
    subprocess.run(
        [*FLYWHEEL, "data", "check", str(recipe), "--json"], env=environment, check=True, capture_output=True
    )
    subprocess.run([sys.executable, __file__, "--register"], env=environment, check=True)
    return time.perf_counter() - started


def wide(rows: Path) -> dict[str, Any]:
    return {
        "name": "wide",
        "objective": {"metric": "bits_per_byte"},
        "data": {
            "sources": [{"type": "files", "path": str(rows), "license": "CC0-1.0"}],
            "process": ["normalize_whitespace", "exact_dedup"],
            "split": {"heldout": 0.02},
            "validate": {"expectations": [{"expect_column_values_to_not_be_null": {"column": "id"}}]},
        },
        "model": {"modality": "text_causal"},
    }


def vocabulary() -> list[str]:
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(20_000)]


def register() -> None:
    """Put a version into the registry, as the step `register` does."""
    from flywheel import artifact
    from infra import registry, tracking
    from infra.settings import Settings

    settings = Settings.load()
    steps = ("ingest", "prepare", "validate")
    marks = {f"lineage.{step}": artifact.existing(settings.store, step)[0].fingerprint for step in steps}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "manifest.json").write_text("{}")
        with tracking.lifecycle_run(settings, "wide", "benchmark", tags={}, params={}) as run:
            version = registry.register(
                settings, registry.Candidate("wide", Path(folder), run.id, "benchmark", "text", "# wide\n", tags=marks)
            )
    registry.set_alias(settings, "wide", "champion", version.version)


def named_row(environment: dict[str, str]) -> str:
    """The id of a row in the middle."""
    done = subprocess.run(
        [*FLYWHEEL, "why", "wide", "--text", SENTENCE, "--json"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    found: list[dict[str, str]] = json.loads(done.stdout)["found"]
    return found[len(found) // 2]["id"]


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used


def report(number: int, seconds: float, taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    rows = [
        {"contender": n, "metric": metric, "median": statistics.median(some), "low": min(some), "high": max(some)}
        for n, pairs in taken.items()
        for metric, some in zip(("seconds", "processor seconds"), zip(*pairs, strict=True), strict=True)
    ]
    slowest = max(row["median"] for row in rows if row["metric"] == "seconds")
    return {
        "machine": machine(),
        "data": {"rows": number, "seconds_to_build": round(seconds)},
        "rows": rows,
        "ratios": {"limit of 5 s / slowest": LIMIT / slowest},
    }


if __name__ == "__main__":
    register() if "--register" in sys.argv else main()
