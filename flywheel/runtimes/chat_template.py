"""Chat templates: a conversation as the text that a model was taught to read, by the Jinja template of its tokenizer.

A template comes with a checkpoint: foreign code. It runs in the sandbox of Jinja, which keeps it from Python and from
files, sees plain strings alone, and is stopped after `SECONDS` or `LONGEST` characters. That ends loops that run for
ever; against a template that takes all memory in one step only a process of its own helps, which training gives it
(`flywheel.modalities.chat`). Words of transformers: `messages`, `add_generation_prompt`, `bos_token`, `strftime_now`,
`raise_exception`, `{% generation %}`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Messages = Sequence[Mapping[str, str]]
Span = tuple[int, int]
"""First character, and the one after the last."""

SECONDS = 2.0
"""Time that one conversation may take."""
LONGEST = 8 << 20
"""Characters that one conversation may become."""
SPLIT, OPEN, CLOSE = "\ufdd0", "\ufdd1", "\ufdd2"
"""Noncharacters of Unicode that stand in a rendered text for a moment: inside what looks like a special token and is
text, and around what the model says."""
_FOREIGN = {ord(mark): "\N{REPLACEMENT CHARACTER}" for mark in (SPLIT, OPEN, CLOSE)}
FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a foreign template may end with."""
DAY = "2025-01-01"
"""What `strftime_now` says where the answer must be the same every day."""


class BadTemplate(ValueError):
    """The template cannot be read, refuses the conversation, or takes too long."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    text: str
    """`SPLIT` stands after the first character of what only looks like a special token."""
    spans: Sequence[Span]
    """What the template marks as said by the model (`{% generation %}`); empty where it marks nothing."""


class ChatTemplate:
    """One template with the special tokens of its tokenizer."""

    def __init__(self, source: str, variables: Mapping[str, str], special: Iterable[str], day: str = "") -> None:
        """`variables` are the template's own (`bos_token`, ...); `special` all special tokens; `day` as YYYY-MM-DD
        stands for today. Raises BadTemplate."""
        self._variables, self._day = dict(variables), day
        found = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, found)) or r"(?!)")
        try:
            self._template = _environment().from_string(source)
        except FAILURES as error:
            raise BadTemplate(f"it is no template: {type(error).__name__} {error}"[:300]) from error

    def render(self, messages: Messages, add_generation_prompt: bool = False) -> Rendered:
        """The text of a conversation, `add_generation_prompt` up to where the model's next turn begins.

        What looks like a special token in a message is text. Raises BadTemplate.
        """
        said = [{name: self._text(value) for name, value in message.items()} for message in messages]
        clock = _Clock(time.monotonic() + SECONDS)
        values = {
            **self._variables,
            "messages": said,
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
            "strftime_now": lambda form: time.strftime(str(form), self._today()),
            _CLOCK: clock,
        }
        written, size = list[str](), 0
        try:
            for piece in self._template.generate(values):
                clock.look()
                written.append(piece)
                size += len(piece)
                if size > LONGEST:
                    raise SecurityError(f"a text of more than {LONGEST} characters")
        except FAILURES as error:
            raise BadTemplate(f"{type(error).__name__}: {error}"[:300]) from error
        return _without_marks("".join(written))

    def pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """A rendered text cut at its special tokens: (text as it was meant, whether it is a special token)."""
        at = 0
        for match in self._special.finditer(text):
            if match.start() > at:
                yield text[at : match.start()].replace(SPLIT, ""), False
            yield match.group(), True
            at = match.end()
        if at < len(text):
            yield text[at:].replace(SPLIT, ""), False

    def _text(self, value: str) -> str:
        whole = str(value).translate(_FOREIGN)
        return self._special.sub(lambda match: f"{match.group()[0]}{SPLIT}{match.group()[1:]}", whole)

    def _today(self) -> time.struct_time:
        return time.strptime(self._day, "%Y-%m-%d") if self._day else time.localtime()


def encode(tokenizer: Any, literal: Any, template: ChatTemplate, text: str) -> list[int]:
    """Token ids (seq,) of a rendered text, by a tokenizer of the package `tokenizers`.

    `literal` gives the same tokenizer with `encode_special_tokens`, which takes special tokens for text.
    """
    if SPLIT not in text:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids
    plain, found = literal(), list[int]()
    for piece, special in template.pieces(text):
        found += [tokenizer.token_to_id(piece)] if special else plain.encode(piece, add_special_tokens=False).ids
    return found


# ---------------------------------------------------------------- the sandbox

_CLOCK = "_clock"


class _Clock:
    def __init__(self, end: float) -> None:
        self._end = end

    def look(self) -> None:
        if time.monotonic() > self._end:
            raise SecurityError(f"more than {SECONDS:.0f} seconds")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox in which every turn of a loop and every call looks at the clock."""

    intercepted_binops = frozenset(["*", "**"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            if loop.recursive:
                raise SecurityError("a recursive loop")
            timed = nodes.Call(nodes.Name("_timed", "load"), [loop.iter, nodes.Name(_CLOCK, "load")], [], None, None)
            loop.iter = timed.set_lineno(loop.lineno)
        return tree

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        context.resolve(_CLOCK).look()
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not all(isinstance(value, int | float) for value in (left, right)):
            sizes = [value if isinstance(value, int | float) else len(value) for value in (left, right)]
            if sizes[0] * sizes[1] > LONGEST:
                raise SecurityError(f"a product of more than {LONGEST} characters")
        elif operator == "**" and (abs(left) > 1 << 32 or abs(right) > 64):
            raise SecurityError(f"{left} ** {right}")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`: what the model says."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        before, after = (nodes.Output([nodes.TemplateData(mark)]).set_lineno(line) for mark in (OPEN, CLOSE))
        return nodes.Scope([before, *body, after]).set_lineno(line)


@cache
def _environment() -> _Sandbox:
    """As transformers sets it up for chat templates."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], cache_size=0)
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _refuse, "_timed": _timed}
    return environment


def _timed(items: Iterable[Any], clock: _Clock) -> Iterator[Any]:
    for item in items:
        clock.look()
        yield item


def _tojson(value: Any, indent: int | None = None, **options: Any) -> str:
    known = {name: options[name] for name in ("ensure_ascii", "separators", "sort_keys") if name in options}
    return json.dumps(value, indent=indent, **{"ensure_ascii": False, **known})


def _refuse(message: str) -> NoReturn:
    raise TemplateError(f"the template says: {message}")


def _without_marks(text: str) -> Rendered:
    """Take `OPEN` and `CLOSE` out of a text, and say what they enclosed."""
    kept, spans, size, start = list[str](), list[Span](), 0, None
    for piece in re.split(f"([{OPEN}{CLOSE}])", text):
        if piece == OPEN:
            start = size
        elif piece == CLOSE:
            if start is not None:
                spans.append((start, size))
            start = None
        else:
            kept.append(piece)
            size += len(piece)
    return Rendered("".join(kept), spans)
