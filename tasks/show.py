"""What people see while a step works: a bar on a terminal, elsewhere a line every ten seconds, and Prefect's UI."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flywheel.tuning import Pruned

SHOWN: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.3f}",
    "eval_loss": lambda value: f"eval {value:.3f}",
    "grad_norm": lambda value: f"grad {value:.2g}",
    "tokens_per_second": lambda value: f"{value / 1000:.1f}k tok/s",
    "mfu": lambda value: f"mfu {value:.0%}",
}
PLAIN_SECONDS = 10.0
"""Between two plain lines, and between two updates of the UI."""


class Reporter:
    """Tells the progress of one step, from its start to its end."""

    def __init__(self, step: str) -> None:
        self.step, self.started, self.told = step, time.monotonic(), time.monotonic()
        self.console = Console(file=sys.stderr, highlight=False)
        self.bar = _bar(self.console)
        self.line = self.bar.add_task(step, total=None, figures="")
        self.artifact: UUID | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar.start()
        else:
            self.console.print(f"{self.step}: started", soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.bar.stop()
        outcome = "done" if error is None else "stopped" if isinstance(error, Pruned) else "failed"
        self.console.print(f"{self.step}: {outcome} in {time.monotonic() - self.started:.1f} s", soft_wrap=True)

    def progress(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Called as often as one likes; the slow places are told at most every ten seconds."""
        words = _words(figures)
        self.bar.update(self.line, completed=done, total=total, figures=words)
        now = time.monotonic()
        if now - self.told < PLAIN_SECONDS and done < total:
            return
        self.told = now
        if not self.console.is_terminal:
            self.console.print(f"{self.step}: {done}/{total} {words}", soft_wrap=True)
        self._tell_prefect(100 * done / max(total, 1), words)

    def _tell_prefect(self, percent: float, words: str) -> None:
        if self.artifact is None:
            self.artifact = _id(create_progress_artifact(percent, key=f"{self.step}-progress", description=words))
        else:
            update_progress_artifact(self.artifact, percent, description=words)

    def table(self, rows: Sequence[Mapping[str, Any]], description: str) -> None:
        """A table in Prefect's UI."""
        create_table_artifact([dict(r) for r in rows], key=self.step, description=description)


def _words(figures: Mapping[str, float]) -> str:
    """The figures that matter most, short enough for a terminal of 80 columns; MLflow has all of them."""
    known = [SHOWN[name](figures[name]) for name in SHOWN if name in figures]
    return " ".join(known or [f"{name} {value:.4g}" for name, value in figures.items()])


def _id(value: Any) -> UUID:
    assert isinstance(value, UUID)  # in a synchronous task Prefect's dual functions return their value
    return value


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[figures]}"),
        console=console,
        transient=True,
    )
