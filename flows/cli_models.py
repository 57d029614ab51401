"""The commands over registered models: `flywheel models`, `promote`, `rollback` and `diff`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

app = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history of the model.")]
Reference = Annotated[str, typer.Argument(help="NAME, NAME@alias or NAME/version.")]


@app.command("models")
def list_models(
    name: Annotated[str | None, typer.Argument(help="A registered model; empty: all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """List versions: their aliases, the objective's metric, and who made which one the champion, when and why."""
    from flows import models

    found = models.listing(name)
    if as_json:
        _print_json(found)
    else:
        from flows import models_screen

        models_screen.show_models(found, history=name is not None)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="NAME/version, or NAME@candidate to approve it.")],
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, whatever the gate said; every file of it is verified first."""
    from flows import models

    _show_move(models.promote(model, reason), as_json)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="A registered model.")], reason: Reason = "", as_json: AsJson = False
) -> None:
    """Make the champion before this one the champion again; the gate does not bring this one back."""
    from flows import models

    _show_move(models.rollback(name, reason), as_json)


@app.command()
def diff(one: Reference, other: Reference, as_json: AsJson = False) -> None:
    """Show what differs between two versions: recipe, data, metrics, packages."""
    from flows import models

    found = models.diff(one, other)
    if as_json:
        _print_json(found)
    else:
        from flows import models_screen

        models_screen.show_diff(found)


def _show_move(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(done)
    else:
        from flows import models_screen

        models_screen.show_move(done)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
