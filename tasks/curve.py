"""The loss curve of a training stage, as points and as a picture."""

from __future__ import annotations

import json

from tasks.shell import Scope


def log_curve(step: Scope) -> None:
    """Log `history.json` that training wrote."""
    from flywheel import pictures

    history = json.loads((step.out / "history.json").read_text())
    step.run.log_history(history)
    step.run.log_picture(pictures.loss_curve(history), "loss.png")
