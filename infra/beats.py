"""Signs of life of a run on another machine, in the directory that both share.

The run writes a number that changes; who follows it looks whether it still does, on its own clock. Prefect itself
shows a run as `Running` for ever when its machine is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.settings import Settings

FIRST_SECONDS = 60
"""A run that has not given any sign yet has so long at least."""


@contextmanager
def beating(settings: Settings, run: str) -> Iterator[None]:
    """Give signs of life, five times in FLYWHEEL_LEASE_SECONDS, while the context lasts."""
    file, done = _file(settings, run), threading.Event()
    file.parent.mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=_beat, args=(file, settings.lease_seconds / 5, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        file.unlink(missing_ok=True)


class Watch:
    """Looks whether a run still gives signs of life; ask it again and again."""

    def __init__(self, settings: Settings, run: str) -> None:
        self.file, self.seconds = _file(settings, run), settings.lease_seconds
        self.last, self.changed = "", time.monotonic()

    def silent(self) -> float:
        """Seconds since the last sign where they are too many; 0 while the run lives."""
        try:
            beat = self.file.read_text()
        except OSError:
            beat = ""
        if beat != self.last:
            self.last, self.changed = beat, time.monotonic()
        waited = time.monotonic() - self.changed
        return waited if waited > (self.seconds if self.last else max(self.seconds, FIRST_SECONDS)) else 0.0

    def forget(self) -> None:
        """Remove what a dead run has left."""
        self.file.unlink(missing_ok=True)


def _beat(file: Path, seconds: float, done: threading.Event) -> None:
    number = 0
    while True:
        with suppress(OSError):  # a store that hiccups is written to the next time
            number += 1
            file.write_text(str(number))
        if done.wait(seconds):
            return


def _file(settings: Settings, run: str) -> Path:
    return settings.leases / "runs" / run
