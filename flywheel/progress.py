"""How long work tells where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called with steps done, steps in total, and figures such as the loss."""


def silent(done: int, total: int, figures: Mapping[str, float]) -> None:
    """A listener for when nobody listens."""
