"""The terminal after `flywheel reproduce`: the same weights or not, and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.console import out, say


def show(found: Mapping[str, Any]) -> None:
    """The verdict, what is not as it was, and the sha256 of each file then and now."""
    aliases = "".join(f" @{alias}" for alias in found["aliases"])
    out.print(Text(f"{found['model']} version {found['version']}{aliases}", "bold"))
    if found["differences"]:
        out.print("not as it was:")
    for words in found["differences"]:
        out.print(Text(f"  {words}"), soft_wrap=True)
    if found["identical"] is None:
        say(
            ("not tried", "yellow"),
            ": other ingredients make other weights; ",
            ("--anyway", "cyan"),
            " tries all the same",
        )
        return
    table = Table(box=None, pad_edge=False)
    for name in ("file", "then", "now"):
        table.add_column(name, no_wrap=True)
    for file in found["files"]:
        same = file["then"] == file["now"]
        now = Text("the same", "green") if same else Text((file["now"] or "absent")[:16], "red")
        table.add_row(file["file"], (file["then"] or "absent")[:16], now)
    out.print(table)
    verdict = ("identical", "green") if found["identical"] else ("different", "red")
    first = f", from {found['first']} on" if found["first"] else ""
    say(verdict, f"{first}, in {found['seconds']:.1f} s")
