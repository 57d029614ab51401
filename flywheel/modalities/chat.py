"""Conversations as token ids: rendered by the tokenizer's own chat template, with a mask of what the model says.

What is learned are the assistant's turns, each with the token that ends it. The mask comes from `{% generation %}`
where the template has it. Else each turn is what the template adds to the conversation before it: where that is still
there in the longer conversation, all turns share one sequence; where it is not (templates that drop earlier thoughts),
each turn is a sequence of its own, after the very text that a server would ask with.

A template is foreign code and runs confined, in a process of its own with caps on time and memory. Today is the same
day every day, so that equal rows give equal tokens.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flywheel import workers
from flywheel.confinement import Caps
from flywheel.errors import TrainingError
from flywheel.metrics.examples import until_answer
from flywheel.modalities.base import Model
from flywheel.modalities.token_rows import Ids
from flywheel.record import Messages, Record
from flywheel.runtimes.chat_template import SPLIT, ChatTemplate, Span, encode

TURN, TURN_END = "<|im_start|>", "<|im_end|>"
CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- message['content'] + '<|im_end|>' }}
{%- endgeneration %}
{{- '\\n' }}
{%- else %}
{{- message['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""For tokenizers that know `TURN` and `TURN_END`."""
PLAIN = """\
{%- for message in messages %}
{{- message['role'] + ': ' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- message['content'] + eos_token }}
{%- endgeneration %}
{%- else %}
{{- message['content'] + '\\n\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'assistant: ' }}
{%- endif %}
"""
"""For other tokenizers without a template: no token is added to the vocabulary."""
MARKED = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
CHARACTERS, SECONDS, MEMORY = 1 << 20, 60.0, 512 << 20
"""Characters of the conversations that one process renders, and what it may take for them."""


Mask = NDArray[np.bool_]


class Said(NamedTuple):
    """One sequence."""

    ids: Ids
    """(length,)."""
    learned: Mask
    """(length,): the assistant's tokens."""


class Refused(NamedTuple):
    """A conversation that cannot be learned, and why."""

    reason: str
    detail: str


class _Text(NamedTuple):
    text: str
    spans: Sequence[Span]
    fault: str


def ready(model: Model) -> None:
    """Give the tokenizer a template where it has none."""
    tokenizer = model.processor
    if not tokenizer.chat_template:
        known = tokenizer.get_vocab()
        tokenizer.chat_template = CHATML if TURN in known and TURN_END in known else PLAIN


def template(model: Model) -> dict[str, Any]:
    """The template of a tokenizer as `ChatTemplate` takes it: `source`, `variables`, `special`."""
    tokenizer = model.processor
    special = sorted(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return {"source": tokenizer.get_chat_template(), "variables": named, "special": special}


def sequences(model: Model, rows: Sequence[Record]) -> list[list[Said] | Refused]:
    """What there is to learn of the conversation of each row: one sequence, or one for each of its answers.

    Raises TrainingError where the template shows an answer in another way than it asks for it.
    """
    ready(model)
    marked = bool(MARKED.search(model.processor.get_chat_template()))
    asked = [_asked(until_answer(row.messages or ()), marked) for row in rows]
    texts = iter(_render(model, [question for questions in asked for question in questions]))
    drafts = [_draft(row, [next(texts) for _ in questions], marked) for row, questions in zip(rows, asked, strict=True)]
    return _encoded(model, drafts)


def whole(model: Model, rows: Sequence[Record]) -> list[list[Said] | Refused]:
    """Each conversation as one sequence of which every token is learned."""
    ready(model)
    texts = _render(model, [(row.messages or (), False) for row in rows])
    drafts = [Refused("template", t.fault) if t.fault else [t._replace(spans=[(0, len(t.text))])] for t in texts]
    return _encoded(model, drafts)


def questions(model: Model, conversations: Sequence[Messages]) -> list[Ids]:
    """Token ids of conversations up to where the assistant's next turn begins. Raises TrainingError where the template
    refuses one."""
    ready(model)
    texts = _render(model, [(messages, True) for messages in conversations])
    for text in texts:
        if text.fault:
            raise TrainingError("the chat template", found=text.fault, expected="a template that takes held-out rows")
    found = _encoded(model, [[text._replace(spans=[])] for text in texts])
    return [said[0].ids for said in found if not isinstance(said, Refused)]


def _asked(messages: Messages, marked: bool) -> list[tuple[Messages, bool]]:
    """What must be rendered to know where the answers are: all at once, or before and after each answer."""
    if marked or not messages:
        return [(messages, False)] if messages else []
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [pair for i in answers for pair in ((messages[:i], True), (messages[: i + 1], False))]


def _draft(row: Record, texts: Sequence[_Text], marked: bool) -> list[_Text] | Refused:
    """The texts of a row's sequences with the spans of its answers."""
    if not texts:
        return Refused("no_answer", "no turn of the assistant")
    for text in texts:
        if text.fault:
            return Refused("template", text.fault)
    if marked:
        return [texts[0]] if texts[0].spans else Refused("template", "it marks no turn as the assistant's")
    befores, afters = texts[::2], texts[1::2]
    for number, (before, after) in enumerate(zip(befores, afters, strict=True), 1):
        if not after.text.startswith(before.text):
            raise _unclear(row, number, before.text, after.text)
    spans = [(len(before.text), len(after.text)) for before, after in zip(befores, afters, strict=True)]
    chain = [text.text for text in texts]
    if all(longer.startswith(shorter) for shorter, longer in pairwise(chain)):
        return [afters[-1]._replace(spans=spans)]
    return [after._replace(spans=[span]) for after, span in zip(afters, spans, strict=True)]


def _unclear(row: Record, number: int, before: str, after: str) -> TrainingError:
    same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    where = f"row {row.id} of source {row.origin.get('source', '')!r}, answer {number}"
    return TrainingError(
        "the chat template of the tokenizer",
        found=f"{where}: asked with {before[same:][:60]!r}, shown as {after[same:][:60]!r}",
        expected="a conversation that begins with the text that asks for its answer (`add_generation_prompt`)",
        remedy="give a chat_template.jinja that marks the assistant's turns with {% generation %}",
    )


# ---------------------------------------------------------------- rendering


def _render(model: Model, asked: Sequence[tuple[Messages, bool]]) -> list[_Text]:
    """Render confined, some conversations at a time."""
    arguments, found = template(model), list[_Text]()
    with tempfile.TemporaryDirectory() as scratch:
        caps = Caps(scratch, memory=MEMORY, seconds=SECONDS)
        for part in _parts(asked):
            argument = {**arguments, "conversations": part}
            (answer,) = workers.here([workers.Request("flywheel.modalities.chat_apart:render", argument, caps)])
            if answer.fault:
                raise TrainingError(
                    "the chat template of the tokenizer",
                    found=f"{answer.fault}: {answer.detail}",
                    expected=f"{len(part)} conversations as text in {SECONDS:.0f} s and {MEMORY >> 20} MB",
                    remedy="look at chat_template.jinja of the checkpoint, or give another one",
                )
            found += [_Text(text, [(a, b) for a, b in spans], fault) for text, spans, fault in answer.value]
    return found


def _parts(asked: Sequence[tuple[Messages, bool]]) -> Iterator[list[tuple[Messages, bool]]]:
    part, size = list[tuple[Messages, bool]](), 0
    for messages, prompt in asked:
        part.append((messages, prompt))
        size += sum(len(message["content"]) + 64 for message in messages)
        if size > CHARACTERS:
            yield part
            part, size = [], 0
    if part:
        yield part


# ---------------------------------------------------------------- tokens


def _encoded(model: Model, drafts: Sequence[list[_Text] | Refused]) -> list[list[Said] | Refused]:
    texts = [text for draft in drafts if not isinstance(draft, Refused) for text in draft]
    said = iter(_tokenise(model, texts))
    return [draft if isinstance(draft, Refused) else [next(said) for _ in draft] for draft in drafts]


def _tokenise(model: Model, texts: Sequence[_Text]) -> Iterator[Said]:
    """Token ids of rendered texts; the special tokens that the template wrote are tokens."""
    backend, special = model.processor.backend_tokenizer, template(model)["special"]
    cutter, literal = ChatTemplate("", {}, special), cache(lambda: _literal(backend))
    pattern = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    for first in range(0, len(texts), 256):
        part = [text._replace(spans=_to_the_end(text, pattern)) for text in texts[first : first + 256]]
        plain = iter(backend.encode_batch([t.text for t in part if SPLIT not in t.text], add_special_tokens=False))
        for text in part:
            if SPLIT not in text.text:
                yield _masked(next(plain), text.spans)
            else:
                yield _in_pieces(text, lambda piece: encode(backend, literal, cutter, piece))


def _literal(tokenizer: Any) -> Any:
    """A tokenizer that takes special tokens for text."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy


def _to_the_end(text: _Text, special: re.Pattern[str]) -> list[Span]:
    """The spans with the special token that ends each turn, and without white space behind it."""
    follows = special.match(text.text, text.spans[-1][1]) if text.spans else None
    found = []
    for start, end in text.spans:
        said = text.text[start:end].rstrip()
        if (start, end) != (0, len(text.text)) and any(m.end() == len(said) for m in special.finditer(said)):
            end = start + len(said)
        elif follows and text.text.startswith(follows.group(), end):
            end += len(follows.group())
        found.append((start, end))
    return found


def _masked(encoding: Any, spans: Sequence[Span]) -> Said:
    """Tokens that share a character with a span are learned."""
    starts, ends = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
    learned = np.zeros(len(starts), dtype=np.bool_)
    for start, end in spans:
        learned |= (ends > start) & (starts < end)
    return Said(np.array(encoding.ids, dtype=np.int64), learned)


def _in_pieces(text: _Text, encoder: Callable[[str], list[int]]) -> Said:
    """As `_masked`, where messages hold what looks like a special token: each side of a span's edge by itself."""
    cuts = sorted({0, len(text.text), *(edge for span in text.spans for edge in span)})
    ids, learned = list[int](), list[bool]()
    for start, end in pairwise(cuts):
        found = encoder(text.text[start:end])
        ids += found
        learned += [(start, end) in text.spans] * len(found)
    return Said(np.array(ids, dtype=np.int64), np.array(learned, dtype=np.bool_))
