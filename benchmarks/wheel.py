"""What the wheel itself costs: the command, the plan and a run in which every step hits, beside their limits.

    python benchmarks/wheel.py [--json]      (about three minutes; writes benchmarks/wheel.json)

Limits measured in the same run, alternating: an interpreter that does nothing, and importing Prefect and MLflow, which
any glue script on them pays before its first task.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.recipes import code_files, code_recipe, write

REPEATS = 5
FLYWHEEL = [sys.executable, "-m", "flows.cli"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        recipe = str(write(home / "r.yaml", code_recipe(code_files(home / "src"))))
        environment = {**os.environ, "FLYWHEEL_HOME": str(home / "state")}
        subprocess.run([*FLYWHEEL, "run", recipe], env=environment, check=True, capture_output=True)
        contenders = {
            "python": [sys.executable, "-c", "pass"],
            "import prefect, mlflow": [sys.executable, "-c", "import prefect, mlflow"],
            "flywheel --help": [*FLYWHEEL, "--help"],
            "flywheel plan": [*FLYWHEEL, "plan", recipe],
            "flywheel run, all hits": [*FLYWHEEL, "run", recipe],
        }
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(REPEATS):
            for name, command in contenders.items():
                started = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                taken[name].append(time.perf_counter() - started)
    result = report(taken)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for row in result["rows"]:
        print(f"{row['contender']:<24}{row['median']:7.2f} s   {row['low']:.2f} to {row['high']:.2f}")


def report(taken: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    rows = [
        {"contender": n, "metric": "seconds", "median": medians[n], "low": min(s), "high": max(s)}
        for n, s in taken.items()
    ]
    glue = medians["import prefect, mlflow"]
    ratios = {f"imports / {name}": glue / seconds for name, seconds in medians.items() if name.startswith("flywheel")}
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": sys.version[:6]}
    return {"machine": machine, "rows": rows, "ratios": ratios}


if __name__ == "__main__":
    main()
