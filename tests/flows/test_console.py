"""The terminal shows what comes from data as it is: no markup, no emoji codes, no control characters."""

from __future__ import annotations

from typing import Any

import pytest

from flows import console, models_screen

HOSTILE = "[nan, nan] [/bold] [red]x :smile: \x1b[2J"
SHOWN = "[nan, nan] [/bold] [red]x :smile: \\x1b[2J"


def test_the_closing_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.out, "width", 200, raising=False)
    metric = {"before": None, "baseline": None, "value": 1.0, "low": 0.0, "high": 2.0, "better": "lower"}
    told: dict[str, Any] = {
        "steps": [{"name": HOSTILE, "cached": False, "reason": HOSTILE}],
        "metrics": {HOSTILE: metric},
        "gate": {"promote": False, "reasons": [HOSTILE]},
        "export": [{"precision": "int8", "accepted": True, "reason": HOSTILE}],
        "model": {"name": HOSTILE, "version": 1, "alias": "champion", "kind": "text"},
        "served": {"served": True, "prompt": "", "answer": HOSTILE},
        "seconds": 1.0,
    }
    console.show_run(told, [(HOSTILE, HOSTILE)])
    console.show_run({**told, "served": {"served": False, "reason": HOSTILE}}, [])
    shown = capsys.readouterr().out
    assert shown.count(SHOWN) == 2 * 6 + 4
    assert "\x1b" not in shown


def test_moves_and_differences_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    models_screen.show_move({"model": HOSTILE, "version": 2, "alias": "champion", "over": None, "moved": True})
    versions: list[dict[str, Any]] = [{"name": "m", "version": n, "aliases": []} for n in (1, 2)]
    found = {"versions": versions, "recipe": [HOSTILE], "data": [], "metrics": {}, "packages": {HOSTILE: ("1", None)}}
    models_screen.show_diff({**found, "missing": [HOSTILE]})
    shown = capsys.readouterr().out
    assert shown.count(SHOWN) == 6
    assert "\x1b" not in shown
