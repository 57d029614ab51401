"""The process that trains: `python -m flywheel.training_worker SPEC.json`, started by flywheel.launch.

Where several processes train together the first one becomes torchrun, which starts them. The first of these tells the
parent how it goes, one JSON object a line: {"step"}, {"progress"}, and at the end {"done"}, {"failed"}, {"rolled_back"}
(start again), {"died"} or {"stopped"} (asked to end, with a checkpoint).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from flywheel.confinement import die_with_parent
from flywheel.errors import FlywheelError

TOLD = "told.jsonl"


def main() -> int:
    """Read the spec, train, and tell."""
    die_with_parent()
    spec = json.loads(Path(sys.argv[1]).read_text())
    if spec["torchrun"] and "RANK" not in os.environ:
        from torch.distributed.run import main as torchrun

        torchrun([*spec["torchrun"], "-m", "flywheel.training_worker", sys.argv[1]])
        return 0
    return _train(spec)


def _train(spec: Mapping[str, Any]) -> int:
    from flywheel.loop import STOP, Stopped
    from flywheel.recipe import Recipe
    from flywheel.training import train
    from flywheel.watch import RolledBack

    def stop(signum: int, frame: FrameType | None) -> None:
        STOP.set()

    signal.signal(signal.SIGTERM, stop)
    work = Path(spec["work"])
    with open(spec["told"] if os.environ.get("RANK", "0") == "0" else os.devnull, "a") as told:

        def tell(**said: Any) -> None:
            told.write(json.dumps(said) + "\n")
            told.flush()

        try:
            summary = train(
                Recipe.model_validate(spec["recipe"]),
                spec["stage"],
                Path(spec["rows"]),
                Path(spec["start"]) if spec["start"] else None,
                Path(spec["out"]),
                work,
                lambda done, total, figures: tell(progress=[done, total, dict(figures)]),
                lambda step: tell(step=step),
                Path(spec["kept"]),
            )
        except RolledBack as why:
            tell(rolled_back=str(why))
            return 1
        except Stopped:
            tell(stopped=True)
            return 1
        except FlywheelError as error:
            tell(failed=[error.thing, error.found, error.expected, error.remedy])
            return 1
        except Exception as error:
            traceback.print_exception(error)
            found = f"{type(error).__name__}: {error}"
            if spec["torchrun"]:  # another process of the group may be what is lost
                tell(died=found)
            else:
                tell(failed=["training", found, "", f"read {work / 'training.log'}"])
            return 1
        tell(done=summary)
        return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of the libraries must not hold it back
