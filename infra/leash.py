"""Child processes that never outlive their parent, even when the parent is killed with -9.

A child is started through `python -m infra.leash COMMAND...`, whose standard input is a pipe that only the parent
holds. The kernel closes the pipe when the parent dies; the leash then stops the child, and what the child has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE_SECONDS = 10
"""Between SIGTERM and SIGKILL for the child; what the child leaves behind has STRAGGLER_SECONDS."""
STRAGGLER_SECONDS = 2


class Leashed:
    """A running child. `stop` ends it; so does the end of this process."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.leash", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,  # a Ctrl-C on the terminal reaches the parent alone, which stops its children
            )

    def alive(self) -> bool:
        return self.process.poll() is None

    def tail(self, lines: int = 12) -> str:
        """The end of the child's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """Let go of the leash and wait until the child has ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def main(command: Sequence[str]) -> int:
    """Run a command in a process group of its own until it ends or the leash is let go; none of the group remains."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    signal.signal(signal.SIGTERM, lambda *_: _tell(child.pid, signal.SIGTERM))
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    code = child.wait()
    deadline = time.monotonic() + STRAGGLER_SECONDS
    left = _tell(child.pid, signal.SIGTERM)
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = _tell(child.pid, 0)
    _tell(child.pid, signal.SIGKILL)
    return code


def _watch(child: subprocess.Popen[bytes]) -> None:
    """Returns from reading only when the parent is gone or has let go."""
    while os.read(0, 1024):  # not sys.stdin: a thread that holds its lock makes the interpreter abort at exit
        pass
    _tell(child.pid, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    _tell(child.pid, signal.SIGKILL)


def _tell(group: int, what: int) -> bool:
    """Signal a process group (0 only asks); False where nothing is left of it."""
    try:
        os.killpg(group, what)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
