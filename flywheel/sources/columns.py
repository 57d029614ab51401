"""From the cells of a row to the fields of a Record: by the recipe's `columns`, standard names, or a known layout.

Standard names are those of TRL's dataset types and of `datasets`. Known layouts, as LLaMA-Factory documents them:

    alpaca      instruction, output | response (input | context, system, history)   prompt and completion, or messages
                instruction, chosen, rejected (input)                               prompt, chosen, rejected
    sharegpt    conversations: [{from, value}, ...] (system)                        messages
                conversations, chosen, rejected                                     messages, chosen, rejected
    question    question | query | prompt, answer | response | output | completion  prompt and completion
    content     one of content, body, article, document                             text
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flywheel.record import COLUMNS

Fields = dict[str, Any]
Cells = Mapping[str, Any]

ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    **dict.fromkeys(("gpt", "model", "bot", "chatgpt", "function_call"), "assistant"),
    "developer": "system",
    "human": "user",
    "observation": "tool",
    "function": "tool",
}
"""Who speaks, as data sets say it → as chat templates do."""
QUESTIONS, ANSWERS = ("prompt", "question", "query"), ("completion", "answer", "response", "output")
INPUTS, OUTPUTS = ("input", "context"), ("output", "response", "completion")
"""Of alpaca, and of those who follow it."""
BODIES = ("content", "body", "article", "document")

_CONTENT = tuple(name for name in COLUMNS if name != "label")
_KNOWN = {"instruction", *QUESTIONS, *ANSWERS, *INPUTS, *OUTPUTS, *BODIES}
_PARTNERS = {"completion": "prompt", "chosen": "rejected", "rejected": "chosen"}


class _Unfit(Exception):
    """Cells that do not make a row: reason and detail."""


@dataclass(frozen=True)
class _Plan:
    """How the cells of all rows with the same columns are read."""

    names: tuple[tuple[str, str], ...]
    """Standard column and its name in the data."""
    note: str = ""
    make: Callable[[Cells], Fields] | None = None
    """Fields that more than one cell makes."""


def record_fields(cells: Cells, mapping: Mapping[Any, str]) -> tuple[Fields, str, str]:
    """The fields of a Record, `label` and `group` among them; the reason why there are none, or ""; and a detail.

    `mapping` is standard column → its name in the data. Where it says what to learn from, no other content is taken.
    Where there is no reason, the detail names the layout that was recognised, if it is not the standard one.

    Reasons: `missing_column`, `ambiguous` (names are known, but not what they are to each other), `not_text`,
    `not_bytes` (images and audio), `undecodable` (bytes that are no UTF-8), `bad_messages`, `empty`.
    """
    try:
        plan = _plan(tuple(cells), tuple(mapping.items()))
        fields = plan.make(cells) if plan.make else {}
        for column, name in plan.names:
            value = _read(column, cells[name])
            if value is not None:
                fields[column] = value
        return _complete(_conversational(fields), {column for column, _ in plan.names}), "", plan.note
    except _Unfit as unfit:
        reason, detail = unfit.args
        return {}, reason, detail[:200]


def row_type(fields: Cells) -> str:
    """The standard type of a row: `preference`, `messages`, `prompt_completion`, `text`, `prompt`; with `image_` or
    `audio_` before it where there is one, which may also stand alone or be an `image_label`; "" for none of them.
    """
    has = {name for name, value in fields.items() if value is not None}
    kind = next((name for needed, name in _TYPES if needed <= has), "")
    for medium in ("image", "audio"):
        if medium in has:
            rest = kind or ("label" if "label" in has else "")
            return f"{medium}_{rest}" if rest else medium
    return kind


_TYPES = (
    ({"chosen", "rejected"}, "preference"),
    ({"messages"}, "messages"),
    ({"prompt", "completion"}, "prompt_completion"),
    ({"text"}, "text"),
    ({"prompt"}, "prompt"),
)


# ---------------------------------------------------------------- plans


@lru_cache(maxsize=256)
def _plan(columns: tuple[str, ...], mapping: tuple[tuple[str, str], ...]) -> _Plan:
    """Raises _Unfit where a column of the mapping is missing, or none is known."""
    for column, name in mapping:
        if name not in columns:
            raise _Unfit("missing_column", f"{name!r} for {column} is none of {', '.join(columns)}")
    if any(column in _CONTENT for column, _ in mapping):
        return _Plan(mapping)
    taken = {name for _, name in mapping}
    free = {name for name in columns if name not in taken}
    found = _standard(free) or _layout(free)
    if found is None:
        reason = "ambiguous" if len(free & _KNOWN) > 1 else "missing_column"
        raise _Unfit(reason, f"say `columns: {{text: NAME}}` or the like; the names are {', '.join(columns)}")
    label = (("label", "label"),) if "label" in free else ()
    return _Plan((*found.names, *label, *mapping), found.note, found.make)


def _standard(free: set[str]) -> _Plan | None:
    """The plan for columns with standard names, with what they need from others; None where there are none."""
    own = [name for name in _CONTENT if name in free]
    plan = _Plan(tuple((name, name) for name in own))
    if own == ["prompt"] or own == ["completion"]:
        return _pair(free) or _alpaca(free) or (plan if own == ["prompt"] else None)
    if own == ["chosen", "rejected"]:
        return _preference(free, plan)
    lone = [name for name in own if name in _PARTNERS and _PARTNERS[name] not in own]
    if lone and len(lone) == len(own):
        raise _Unfit("missing_column", f"{lone[0]} without {_PARTNERS[lone[0]]}")
    return _Plan(tuple((name, name) for name in own if name not in lone)) if own else None


def _layout(free: set[str]) -> _Plan | None:
    if "conversations" in free:
        return _sharegpt(free)
    return _alpaca(free) or _pair(free) or _body(free)


def _preference(free: set[str], plan: _Plan) -> _Plan:
    """What comes before the two answers, if anything does."""
    if "conversations" in free:
        first = _sharegpt(free)
    elif "instruction" in free:
        given = _only(INPUTS, free)
        note = f"alpaca: instruction{f' and {given}' if given else ''} → prompt"
        first = _Plan((), note, lambda cells: {"prompt": _instruction(cells, given)})
    else:
        question = _only(QUESTIONS, free)
        first = _Plan((("prompt", question),), f"{question} → prompt") if question else _Plan(())
    return _Plan((*first.names, *plan.names), first.note, first.make)


def _sharegpt(free: set[str]) -> _Plan:
    note = "sharegpt: conversations → messages"
    if "system" not in free:
        return _Plan((("messages", "conversations"),), note)
    return _Plan((), note, _with_system)


def _alpaca(free: set[str]) -> _Plan | None:
    output, given = _only(OUTPUTS, free), _only(INPUTS, free)
    if "instruction" not in free or not output:
        return None
    if free & {"system", "history"}:
        note = f"alpaca: instruction, {output}, system and history → messages"
        return _Plan((), note, lambda cells: {"messages": _told(cells, given, output)})
    note = f"alpaca: instruction{f' and {given}' if given else ''} → prompt, {output} → completion"
    return _Plan((("completion", output),), note, lambda cells: {"prompt": _instruction(cells, given)})


def _pair(free: set[str]) -> _Plan | None:
    question, answer = _only(QUESTIONS, free), _only(ANSWERS, free)
    if not question or not answer or free & {"instruction", *INPUTS}:
        return None
    return _Plan((("prompt", question), ("completion", answer)), f"{question} → prompt, {answer} → completion")


def _body(free: set[str]) -> _Plan | None:
    body = _only(BODIES, free)
    return _Plan((("text", body),), f"{body} → text") if body else None


def _only(names: Sequence[str], free: set[str]) -> str:
    """The one of some names that is there, or ""."""
    found = [name for name in names if name in free]
    return found[0] if len(found) == 1 else ""


# ---------------------------------------------------------------- layouts


def _instruction(cells: Cells, given: str) -> str | None:
    """Alpaca's prompt: the instruction and, after a blank line, what it is about."""
    instruction = _text(cells["instruction"], "instruction")
    about = _text(cells[given], given) if given else None
    return f"{instruction}\n\n{about}" if instruction and about and about.strip() else instruction


def _told(cells: Cells, given: str, output: str) -> list[dict[str, str]] | None:
    """Alpaca's row with a system prompt and earlier turns, as a conversation."""
    turns = [("system", cells.get("system"))]
    for pair in cells.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _Unfit("bad_messages", "history is no list of pairs")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    turns += [("user", _instruction(cells, given)), ("assistant", cells[output])]
    if any(not isinstance(text, str) or not text.strip() for _, text in turns[-2:]):
        raise _Unfit("empty", "instruction or output")
    return _messages([{"role": role, "content": text} for role, text in turns if text], "messages")


def _with_system(cells: Cells) -> Fields:
    messages = _messages(cells["conversations"], "conversations")
    system = _text(cells["system"], "system")
    if messages and system and system.strip() and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


# ---------------------------------------------------------------- cells


def _decoded(value: Any, column: str) -> Any:
    """Bytes as the UTF-8 that they must be: where one cell of a database is no text, its whole column is of bytes."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _Unfit("undecodable", f"{column}: {error}") from None


def _text(value: Any, column: str) -> str | None:
    value = _decoded(value, column)
    if value is None or isinstance(value, str):
        return value
    raise _Unfit("not_text", f"{column} is {type(value).__name__}")


def _text_or_messages(value: Any, column: str) -> Any:
    return _messages(value, column) if isinstance(value, list | tuple | dict) else _text(value, column)


def _messages(value: Any, column: str) -> list[dict[str, str]] | None:
    """A conversation in standard form, or None where nobody says anything. A text may hold it as JSON."""
    value = _decoded(value, column)
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _Unfit("bad_messages", f"{column} is a text, but no JSON") from None
    found = [_message(one, column) for one in ([value] if isinstance(value, dict) else _listed(value, column))]
    return found if any(message["content"].strip() for message in found) else None


def _listed(value: Any, column: str) -> Sequence[Any]:
    if not value:
        return ()
    if isinstance(value, list | tuple):
        return value
    raise _Unfit("bad_messages", f"{column} is {type(value).__name__}")


def _message(value: Any, column: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _Unfit("bad_messages", f"{column} holds {type(value).__name__}")
    role = ROLES.get(str(value.get("role") or value.get("from")).lower())
    if role is None:
        raise _Unfit("bad_messages", f"unknown role {str(value.get('role') or value.get('from'))[:40]!r} in {column}")
    content = value.get("content", value.get("value"))
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str):
        raise _Unfit("bad_messages", f"content of {role} in {column} is {type(content).__name__}")
    return {"role": role, "content": content}


def _bytes(value: Any, column: str) -> bytes | None:
    """An encoded picture or recording, as it is or as `datasets` stores it."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if value is None or isinstance(data, bytes):
        return data
    raise _Unfit("not_bytes", f"{column} is {type(value).__name__} without bytes")


def _word(value: Any, column: str) -> str | None:
    value = _decoded(value, column)
    if value is None or isinstance(value, str | int | float):
        return None if value is None else str(value)
    raise _Unfit("not_text", f"{column} is {type(value).__name__}")


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "text": _text,
    "prompt": _text_or_messages,
    "completion": _text_or_messages,
    "messages": _messages,
    "chosen": _text_or_messages,
    "rejected": _text_or_messages,
    "image": _bytes,
    "audio": _bytes,
}


def _read(column: str, value: Any) -> Any:
    reader = _READERS.get(column)
    return reader(value, column) if reader else _word(value, column)


# ---------------------------------------------------------------- rows


def _conversational(fields: Fields) -> Fields:
    """TRL's conversational prompts and completions, which are lists of messages, as `messages`."""
    prompt, completion = fields.get("prompt"), fields.get("completion")
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return fields
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    rest = {name: value for name, value in fields.items() if name not in ("prompt", "completion")}
    return {**rest, "messages": [*(prompt or ()), *(completion or ())]}


def _complete(fields: Fields, columns: set[str]) -> Fields:
    """The fields without blank texts. Raises _Unfit where too little is left."""
    kept = {n: v for n, v in fields.items() if v is not None and not (isinstance(v, str) and not v.strip())}
    kind = row_type(kept)
    lone = [name for name in kept if name in _PARTNERS and _PARTNERS[name] not in columns]
    if lone and not kind:
        raise _Unfit("missing_column", f"{lone[0]} without {_PARTNERS[lone[0]]}")
    asked = {"prompt": {"completion", "chosen"}, "messages": {"chosen"}}.get(kind, set())
    if not kind or asked & columns:
        raise _Unfit("empty", ", ".join(sorted(columns - kept.keys())))
    return kept
