"""Training beside transformers' Trainer and the peers: one model, the same documents, contenders in turn.

    python benchmarks/training.py [--json] [--only speed|memory] [--repeats 3] [--peer NAME=PYTHON ...]

A Llama of 13.8 million parameters learns documents of at most 512 tokens (benchmarks/training_corpus.py). Each run is a
process of its own, one after the other, and every repeat starts from other weights. `tokens_per_second` counts tokens
of documents, the first steps left out. `utilisation` is 6 FLOP for each parameter and token, by the products of square
matrices that the same process measures, in the type that the contender computes in. `seconds_to_loss` is until the loss
on held-out documents is what the Trainer's defaults end with; measuring that loss does not count, compiling does:
`flywheel, cold` begins with an empty cache. PYTHON is an interpreter of an environment that has the peer.

`memory` is what the cross-entropy of 32,768 classes takes at most beside its inputs, forward and backward.

It takes about a quarter of an hour with all peers, and writes training.json.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import training_corpus  # noqa: E402
from benchmarks.machine import machine  # noqa: E402
from benchmarks.training_contenders import ROWS  # noqa: E402
from benchmarks.training_peers import PEERS  # noqa: E402

OURS, DEFAULT, PACKED, COLD = "flywheel", "HF Trainer", "HF Trainer, packed", "flywheel, cold"
STEPS = {DEFAULT: 80, PACKED: 16, OURS: 56}
PEER_STEPS, WARM, VOCABULARY = 12, 3, 32768
"""Steps of a peer, and how many of the first are left out; classes of the loss whose memory is measured."""
PATIENCE = 300
"""Seconds that a peer may take."""
MEMORY = ("naive", "flywheel", "naive, compiled", "flywheel, compiled")
Values = dict[tuple[str, str], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--only", choices=("speed", "memory"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"one of {', '.join(PEERS)}")
    arguments = parser.parse_args()
    result = measured(arguments)
    if arguments.only is None:
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if arguments.json else table(result))


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    values: Values = {}
    missing = dict.fromkeys(PEERS, "no interpreter was given")
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if arguments.only != "speed":
            for how in MEMORY * arguments.repeats:
                add(values, how, "peak_bytes", run(f"memory/{how}", home, 0, VOCABULARY)["bytes"])
        if arguments.only != "memory":
            facts = training_corpus.write(home, arguments.repeats)
            missing |= speed(home, values, facts["parameters"], arguments.repeats, pythons(arguments.peer))
    rows = [
        {"contender": name, "metric": metric, "median": statistics.median(v), "low": min(v), "high": max(v)}
        for (name, metric), v in values.items()
    ]
    return {
        "machine": machine(),
        "corpus": facts,
        "rows": rows,
        "ratios": ratios(values),
        "missing": {name: why for name, why in missing.items() if (name, "tokens_per_second") not in values},
    }


def pythons(given: Sequence[str]) -> dict[str, str]:
    found = dict(one.partition("=")[::2] for one in given)
    if found.keys() - PEERS.keys():
        raise SystemExit(f"unknown peer {', '.join(found.keys() - PEERS.keys())}; there are {', '.join(PEERS)}")
    return found


def speed(home: Path, values: Values, parameters: int, repeats: int, peers: Mapping[str, str]) -> dict[str, str]:
    """All contenders in turn, for each of the seeds; the peers that did not run, and why."""
    missing: dict[str, str] = {}
    first = run(OURS, home, 0, STEPS[OURS])
    add(values, COLD, "seconds_to_first_step", first["steps"][0][1])
    for seed in range(repeats):
        found = {name: run(name, home, seed, STEPS[name]) for name in (DEFAULT, PACKED, OURS)}
        target = found[DEFAULT]["points"][-1][2]
        for name, one in found.items():
            rate = per_second(one["steps"])
            kind = "bfloat16" if name == OURS else "float32"
            peak = statistics.mean(peaks[kind] for peaks in one["peaks"])
            add(values, name, "tokens_per_second", rate)
            add(values, name, "utilisation", 6 * parameters * rate / peak)
            add(values, name, f"peak_{kind}_gflops", peak / 1e9)
        for name in (DEFAULT, OURS):
            add(values, name, "seconds_to_loss", until(found[name]["points"], target))
        add(values, OURS, "seconds_to_first_step", found[OURS]["steps"][0][1])
        more = first["steps"][0][1] - found[OURS]["steps"][0][1]
        add(values, COLD, "seconds_to_loss", until(found[OURS]["points"], target) + more)
        add(values, DEFAULT, "held_out_loss", target)
        for name, python in peers.items():
            if name not in missing:
                rate, why = run_peer(name, python, home, seed)
                if why:
                    missing[name] = why
                else:
                    add(values, name, "tokens_per_second", rate)
    return missing


def add(values: Values, contender: str, metric: str, value: float) -> None:
    values.setdefault((contender, metric), []).append(value)


def per_second(steps: Sequence[tuple[int, float, int]]) -> float:
    """Tokens a second after the first steps."""
    (_, began, before), (_, ended, after) = steps[WARM - 1], steps[-1]
    return (after - before) / (ended - began)


def until(points: Sequence[tuple[int, float, float]], target: float) -> float:
    """Seconds until the loss is `target`, between two points on a straight line."""
    before: tuple[float, float] | None = None
    for _, seconds, loss in points:
        if loss <= target:
            if before is None or before[1] == loss:
                return seconds
            share = (before[1] - target) / (before[1] - loss)
            return before[0] + share * (seconds - before[0])
        before = seconds, loss
    raise SystemExit(f"the loss of {target:.3f} was not reached: {points}")


def ratios(values: Values) -> dict[str, float]:
    """How many times as fast flywheel is, and as much memory the plain loss takes: of medians, more is better."""
    median = {key: statistics.median(found) for key, found in values.items()}
    found: dict[str, float] = {}
    for name in (DEFAULT, PACKED, *PEERS):
        if (name, "tokens_per_second") in median:
            found[f"{OURS} / {name}, tokens_per_second"] = (
                median[OURS, "tokens_per_second"] / median[name, "tokens_per_second"]
            )
    best = max((median[p, "tokens_per_second"] for p in PEERS if (p, "tokens_per_second") in median), default=None)
    if best:
        found[f"{OURS} / best peer, tokens_per_second"] = median[OURS, "tokens_per_second"] / best
    for name in (OURS, COLD):
        if (name, "seconds_to_loss") in median:
            found[f"{DEFAULT} / {name}, seconds_to_loss"] = (
                median[DEFAULT, "seconds_to_loss"] / median[name, "seconds_to_loss"]
            )
    for plain, ours in (("naive", OURS), ("naive", f"{OURS}, compiled"), ("naive, compiled", f"{OURS}, compiled")):
        if (plain, "peak_bytes") in median:
            found[f"{plain} / {ours}, peak_bytes"] = median[plain, "peak_bytes"] / median[ours, "peak_bytes"]
    return found


def table(result: Mapping[str, Any]) -> str:
    lines = [
        f"{row['contender']:<20}{row['metric']:<24}{row['median']:16.3f}   {row['low']:.3f} to {row['high']:.3f}"
        for row in result["rows"]
    ]
    lines += [f"{name:<52}{value:8.2f}" for name, value in result["ratios"].items()]
    return "\n".join([*lines, *(f"{name}: {why}" for name, why in result["missing"].items())])


# ---------------------------------------------------------------- runs


def run(name: str, home: Path, seed: int, steps: int) -> dict[str, Any]:
    """One run of a contender in a process of its own, with the environment that it has by itself."""
    from flywheel.launch import ALLOCATOR

    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(home / "compiled" / name.partition("/")[0])
    if name == OURS:
        environment |= ALLOCATOR
    if name.startswith("memory/"):
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)  # what is freed is given back at once, and not counted
    script = ROOT / "benchmarks" / "training_contenders.py"
    arguments = [name, str(home), str(seed), str(steps), str(home / "result.json")]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return dict(json.loads((home / "result.json").read_text()))


def run_peer(name: str, python: str, home: Path, seed: int) -> tuple[float, str]:
    """Tokens a second of a peer's own script, by the times of the lines that it prints; or why it did not run."""
    out = home / f"out-{name}"
    shutil.rmtree(out, ignore_errors=True)
    arguments, mark = PEERS[name](home, home / f"model-{seed}", out, PEER_STEPS)
    quiet = dict.fromkeys(("HF_HUB_OFFLINE", "DO_NOT_TRACK", "AXOLOTL_DO_NOT_TRACK", "PYTHONUNBUFFERED"), "1")
    environment = {**os.environ, **quiet, "TORCHINDUCTOR_CACHE_DIR": str(home / "compiled" / name)}
    process = subprocess.Popen(
        [python, *arguments],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    began, times, last = time.perf_counter(), [], ""
    assert process.stdout is not None
    for line in process.stdout:
        last = line.strip() or last
        if mark in line:
            times.append(time.perf_counter())
        if time.perf_counter() - began > PATIENCE:
            process.kill()
            last = f"it took longer than {PATIENCE} s"
    if process.wait() or len(times) <= WARM:
        return 0.0, last[-300:]
    return (len(times) - WARM) * ROWS * training_corpus.LENGTH / (times[-1] - times[WARM - 1]), ""


if __name__ == "__main__":
    main()
