"""What runs in a process of its own: a foreign chat template on conversations. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flywheel.runtimes.chat_template import DAY, BadTemplate, ChatTemplate


def render(argument: Mapping[str, Any]) -> list[list[Any]]:
    """[text, spans, fault] of each of `conversations`, which are [messages, add_generation_prompt]."""
    try:
        template = ChatTemplate(argument["source"], argument["variables"], argument["special"], DAY)
    except BadTemplate as error:
        return [["", [], str(error)] for _ in argument["conversations"]]
    found: list[list[Any]] = []
    for messages, add_generation_prompt in argument["conversations"]:
        try:
            rendered = template.render(messages, add_generation_prompt)
            found.append([rendered.text, list(rendered.spans), ""])
        except BadTemplate as error:
            found.append(["", [], str(error)])
    return found
