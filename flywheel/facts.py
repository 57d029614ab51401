"""Facts about one row that expectations may name as columns; only those that a suite names are worked out.

A column that a row has nothing for (the roles of a plain text, the length of a picture's recording) is None, which
Great Expectations does not judge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from flywheel.record import Messages, Record, content, texts

Value = bool | int | float | str | None
Measure = Callable[[Record], Mapping[str, Value]]
CountTokens = Callable[[str], int]

_CONTROL = re.compile("[\N{REPLACEMENT CHARACTER}\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def columns(record: Record, wanted: frozenset[str], count_tokens: CountTokens | None = None) -> dict[str, Value]:
    """The columns of `COLUMNS` among `wanted`, in that order. Names that are not in `COLUMNS` are passed over.

    `count_tokens` measures `tokens`; see `token_counter`.
    """
    measures = {COLUMNS[name]: None for name in COLUMNS if name in wanted}
    found: dict[str, Value] = {}
    for measure in measures:
        found.update(measure(record))
    if "tokens" in wanted:
        parts = texts(record)
        found["tokens"] = sum(map(count_tokens or pieces, parts)) if parts else None
    return {name: found[name] for name in (*COLUMNS, "tokens") if name in wanted}


def token_counter(checkpoint: str | None) -> CountTokens:
    """Tokens as the tokenizer of a checkpoint (directory or hub id) counts them, special tokens aside; without a
    checkpoint `pieces`."""
    if checkpoint is None:
        return pieces
    file = Path(checkpoint) / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(file))
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    from transformers import AutoTokenizer

    slow = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    return lambda text: len(slow(text, add_special_tokens=False)["input_ids"])


def pieces(text: str) -> int:
    """Words, numbers and runs of marks as GPT-2's pre-tokenizer cuts them: no byte-level BPE has fewer tokens."""
    return len(_pre_tokenizer().pre_tokenize_str(text))


@cache
def _pre_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel(add_prefix_space=False)


def turns_alternate(messages: Messages) -> bool:
    """Whether, after the system's messages, the user begins and user and assistant take turns.

    Messages of a `tool` stand between two of the assistant.
    """
    roles = [message["role"] for message in messages]
    while roles and roles[0] in ("system", "developer"):
        roles.pop(0)
    follows = {"": "user", "user": "assistant", "assistant": "user tool", "tool": "tool assistant"}
    return bool(roles) and all(
        role in follows.get(before, "").split() for before, role in zip(["", *roles], roles, strict=False)
    )


def image_facts(data: bytes) -> dict[str, Value]:
    """`image_intact`: the whole picture decodes; then also `width` and `height` in pixels."""
    from flywheel.media import Undecodable, decode_image

    try:
        width, height = decode_image(data).size
    except Undecodable:
        return {"image_intact": False, "width": None, "height": None}
    return {"image_intact": True, "width": width, "height": height}


def audio_facts(data: bytes) -> dict[str, Value]:
    """`audio_intact`: the whole recording decodes to finite numbers; then also `seconds` and `sample_rate` in Hz."""
    from flywheel.media import Undecodable, check_audio

    try:
        check_audio(data)
    except Undecodable:
        return {"audio_intact": False, "seconds": None, "sample_rate": None}
    import soundfile

    found = soundfile.info(BytesIO(data))
    return {"audio_intact": True, "seconds": found.frames / found.samplerate, "sample_rate": found.samplerate}


# ---------------------------------------------------------------- one function for columns that go together


def _size(record: Record) -> dict[str, Value]:
    return {"length": sum(map(len, texts(record)))}


def _digest(record: Record) -> dict[str, Value]:
    return {"digest": hashlib.sha256(content(record)).hexdigest()}


def _origin(record: Record) -> dict[str, Value]:
    return {"label": record.label, **{name: record.origin.get(name) for name in ("source", "group", "license")}}


def _encoding(record: Record) -> dict[str, Value]:
    from ftfy.badness import BADNESS_RE

    parts = texts(record)
    wrong = sum(len(_CONTROL.findall(text)) for text in parts)
    wrong += sum(len(found.group()) for text in parts for found in BADNESS_RE.finditer(_CONTROL.sub(" ", text)))
    return {"encoding_errors": min(1.0, wrong / max(1, sum(map(len, parts)))) if parts else None}


def _language(record: Record) -> dict[str, Value]:
    from flywheel.process.language import detect

    text = "\n".join(texts(record))
    code, score = detect(text) if text.strip() else (None, None)
    return {"language": code, "language_score": score}


def _pii(record: Record) -> dict[str, Value]:
    from flywheel.process.privacy import find_pii

    parts = texts(record)
    count = sum(len(find_pii(text)) for text in parts)
    return {"pii": count if parts else None, "has_pii": count > 0 if parts else None}


def _conversation(record: Record) -> dict[str, Value]:
    opening: Messages = [] if record.prompt is None else [{"role": "user", "content": record.prompt}]
    found = [] if record.messages is None else [record.messages]
    found += [[*opening, *side] for side in (record.chosen, record.rejected) if side and not isinstance(side, str)]
    return {
        "turns": max(map(len, found)) if found else None,
        "roles_alternate": all(map(turns_alternate, found)) if found else None,
    }


def _answers(record: Record) -> dict[str, Value]:
    pairs = [] if record.prompt is None or record.completion is None else [(record.prompt, record.completion)]
    messages: Messages = record.messages or []
    pairs += [
        (asked["content"], answered["content"])
        for asked, answered in pairwise(messages)
        if (asked["role"], answered["role"]) == ("user", "assistant")
    ]
    preferred = record.chosen is not None and record.rejected is not None
    return {
        "prompt_differs": all(_plain(a) != _plain(b) for a, b in pairs) if pairs else None,
        "chosen_differs": _said(record.chosen) != _said(record.rejected) if preferred else None,
    }


def _said(value: str | Messages | None) -> list[str]:
    return [_plain(value)] if isinstance(value, str) else [_plain(message["content"]) for message in value or ()]


def _plain(text: str) -> str:
    """Without what makes no difference to a reader: case and white space."""
    return " ".join(text.split()).casefold()


def _image(record: Record) -> dict[str, Value]:
    nothing = {"image_intact": None, "width": None, "height": None}
    return dict(nothing) if record.image is None else image_facts(record.image)


def _audio(record: Record) -> dict[str, Value]:
    nothing = {"audio_intact": None, "seconds": None, "sample_rate": None}
    return dict(nothing) if record.audio is None else audio_facts(record.audio)


COLUMNS: dict[str, Measure] = {
    "length": _size,
    "digest": _digest,
    "label": _origin,
    "source": _origin,
    "group": _origin,
    "license": _origin,
    "encoding_errors": _encoding,
    "language": _language,
    "language_score": _language,
    "pii": _pii,
    "has_pii": _pii,
    "turns": _conversation,
    "roles_alternate": _conversation,
    "prompt_differs": _answers,
    "chosen_differs": _answers,
    "image_intact": _image,
    "width": _image,
    "height": _image,
    "audio_intact": _audio,
    "seconds": _audio,
    "sample_rate": _audio,
}
"""Column to the function that measures it. `tokens`, which needs a tokenizer, is a column too.

`length` in characters, `digest` of the whole content, `encoding_errors` the share (0 to 1) of characters that are
U+FFFD, stray controls or mojibake (as ftfy sees it), `pii` the number of personal identifiers found, `turns` the
messages of the longest conversation."""
NAMES = (*COLUMNS, "tokens")
"""Every column, for messages that name the nearest."""
