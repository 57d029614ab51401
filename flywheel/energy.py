"""What a computation takes of the processors' energy, by the counters that they keep themselves (RAPL).

Linux shows them as /sys/class/powercap/intel-rapl:N/energy_uj, of AMD's processors too, as a rule to root alone;
virtual machines show none. They count everything that runs on the machine meanwhile. Not covered: memory, disks, GPUs.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType

ROOT = Path("/sys/class/powercap")
PACKAGE = re.compile(r"intel-rapl:\d+")
EVERY = 30.0
"""Seconds between two looks: counters start again from 0, under a heavy load after some ten minutes."""
JOULES = 3.6e6
"""In a kilowatt-hour."""


class Meter:
    """Adds up what the counters tell from the entry to the exit of its context."""

    def __init__(self, root: Path = ROOT) -> None:
        self._packages = [p for p in sorted(root.glob("*")) if PACKAGE.fullmatch(p.name)] if root.is_dir() else []
        self._joules, self._last = 0.0, self._read()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Meter:
        self._last = self._read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.look()

    @property
    def kilowatt_hours(self) -> float | None:
        """So far; None where no counter can be read."""
        return self._joules / JOULES if self._last else None

    def look(self) -> None:
        """Add what was used since the last look."""
        now = self._read()
        for package, (count, most) in now.items():
            before = self._last.get(package, (count, most))[0]
            self._joules += (count - before if count >= before else count + most - before) / 1e6
        self._last = now

    def _look(self) -> None:
        while not self._ended.wait(EVERY):
            self.look()

    def _read(self) -> dict[Path, tuple[int, int]]:
        """Microjoules of each package, and where its counter starts again; nothing where one cannot be read."""
        try:
            return {p: (_number(p / "energy_uj"), _number(p / "max_energy_range_uj")) for p in self._packages}
        except (OSError, ValueError):
            return {}


def _number(file: Path) -> int:
    return int(file.read_text())
