"""The chat template of a bundle: from messages to a prompt, and from that to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.errors import ServingError

if TYPE_CHECKING:
    from flywheel.runtimes.chat_template import ChatTemplate

_WRITTEN = "\ufdd1"
"""Goes before a prompt that a template wrote: a noncharacter of Unicode, which no text begins with."""


def open_template(directory: Path, described: Mapping[str, Any]) -> Chat:
    """The template of a bundle, as its manifest describes it. Raises ServingError for one that cannot be read."""
    from flywheel.runtimes.chat_template import BadTemplate, ChatTemplate

    try:
        return Chat(directory, ChatTemplate(described["source"], described["variables"], described["special"]))
    except (BadTemplate, KeyError, TypeError) as error:
        raise ServingError(
            f"model bundle {directory}", found=f"chat_template: {error}", expected="a chat template that can be read"
        ) from error


class Chat:
    """A template together with the tokenizer that it was written for."""

    def __init__(self, directory: Path, template: ChatTemplate) -> None:
        self._directory, self._template = directory, template

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation up to where the model's turn begins. Raises BadTemplate, a ValueError."""
        return _WRITTEN + self._template.render(messages, add_generation_prompt=True).text

    def whole(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation as it is, for a model that judges it. Raises BadTemplate, a ValueError."""
        return _WRITTEN + self._template.render(messages).text

    def wrote(self, prompt: str) -> bool:
        """Whether a prompt comes from here. Then it holds all the special tokens that it needs."""
        return prompt.startswith(_WRITTEN)

    def encode(self, tokenizer: Any, prompt: str) -> list[int]:
        """Token ids (seq,) of a prompt from here; what looks like a special token in a message is text."""
        from flywheel.runtimes.chat_template import encode

        return encode(tokenizer, lambda: self._literal, self._template, prompt.removeprefix(_WRITTEN))

    @cached_property
    def _literal(self) -> Any:
        """The tokenizer once more, taking special tokens for text."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._directory / "tokenizer.json"))
        tokenizer.encode_special_tokens = True
        return tokenizer
