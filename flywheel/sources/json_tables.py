"""Rows from JSON and JSON Lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from flywheel.sources.decoding import BLOCK, byte_lines, damaged, open_text
from flywheel.sources.parsed import MAX_CELL, Bad, Found, Options

MAX_OBJECT = 64 << 20
"""Bytes of a JSON file that is one object; a list may have any length."""

_SHORT = 1 << 20
"""orjson is fast, but not safe where memory runs out: longer lines go to the standard library."""
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def json_lines(path: Path, options: Options) -> Iterator[Found | Bad]:
    """One JSON object in each line. Position: the line. Bad: `undecodable`, `bad_json`, `too_long`, `empty`."""
    for number, line in enumerate(byte_lines(path, options), start=1):
        yield _too_long(str(number)) if line is None else _json_line(str(number), line)


def _json_line(position: str, line: bytes) -> Found | Bad:
    import orjson

    if len(line) < _SHORT:
        try:
            value = orjson.loads(line)
            return Found(position, value) if isinstance(value, dict) else _no_object(position, value)
        except orjson.JSONDecodeError:
            pass  # NaN and half surrogate pairs are for the slower parser, which also says what is wrong
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Bad(position, "undecodable")
    if not text.strip():
        return Bad(position, "empty")
    try:
        return _json_value(position, _DECODER.decode(text), _suspicious(text))
    except (ValueError, RecursionError) as error:
        return _bad_json(position, error)


def json_rows(path: Path, options: Options) -> Iterator[Found | Bad]:
    """Rows of a JSON file: the objects of a list, of the only list in an object, or one object; or it is JSON Lines.

    Position: the number of the row. Bad: `undecodable`, `bad_json`, `too_long`.
    """
    with open_text(path, options) as file:
        start = file.read(BLOCK)
        if start.lstrip().startswith("["):
            file.seek(0)
            yield from _json_list(file)
            return
    if _is_lines(path, options):
        yield from json_lines(path, options)
    elif path.stat().st_size > MAX_OBJECT:
        yield Bad("", "too_long", f"one JSON object of more than {MAX_OBJECT >> 20} MB; write a list or JSON Lines")
    else:
        with open_text(path, options) as file:
            yield from _json_object(file.read())


def _is_lines(path: Path, options: Options) -> bool:
    """Whether the first line is a whole object and something follows it."""
    lines = byte_lines(path, options)
    first = next(lines, None)
    if first is None or not isinstance(_json_line("", first), Found):
        return False
    return any(line is None or line.strip() for line in lines)


def _json_list(file: TextIO) -> Iterator[Found | Bad]:
    """The elements of a list, decoded one after the other from a window of the text."""
    window = _Window(file)
    window.past("[")
    number = 0
    while not window.past("]"):
        number += 1
        position = str(number)
        try:
            text, value = window.value()
        except (ValueError, RecursionError) as error:
            yield _too_long(position) if window.full else _bad_json(position, error)
            return
        yield _json_value(position, value, _suspicious(text))
        if not window.past(",") and not window.at("]"):
            yield _bad_json(str(number + 1), "',' or ']' expected")
            return
    if window.rest():
        yield _bad_json(str(number + 1), "text after the list")


class _Window:
    """A JSON text of any length, seen through a window of at most one value."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self.full = False

    def at(self, mark: str) -> bool:
        while True:
            self._at = _end_of_space(self._text, self._at)
            if self._at < len(self._text) or self._ended:
                return self._text.startswith(mark, self._at)
            self._more()

    def past(self, mark: str) -> bool:
        found = self.at(mark)
        self._at += len(mark) if found else 0
        return found

    def value(self) -> tuple[str, Any]:
        """The text of the next value, and the value. Raises ValueError and RecursionError."""
        self.at("")
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:
                    break
            except ValueError:
                self.full = len(self._text) - self._at > MAX_CELL
                if self._ended or self.full:
                    raise
            self._more()
        text = self._text[self._at : end]
        self._at = end
        return text, value

    def rest(self) -> bool:
        self.at("")
        return self._at < len(self._text)

    def _more(self) -> None:
        """Twice as much of the text as is left, so that a long value is not looked at too often."""
        kept = self._text[self._at :]
        more = self._file.read(max(BLOCK, len(kept)))
        self._text, self._at, self._ended = kept + more, 0, not more


def _json_object(text: str) -> Iterator[Found | Bad]:
    if not text.strip():
        return
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        yield Bad("", "undecodable") if damaged(text) else _bad_json("", error)
        return
    suspicious = _suspicious(text)
    lists = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
    if len(lists) == 1 and lists[0] and all(isinstance(row, dict) for row in lists[0]):
        for number, row in enumerate(lists[0], start=1):
            yield _json_value(str(number), row, suspicious)
    else:
        yield _json_value("", value, suspicious)


def _suspicious(text: str) -> bool:
    """Whether a JSON text may hold what is no text: bytes that could not be decoded, or half a surrogate pair."""
    return damaged(text) or _HALF_PAIR.search(text) is not None


def _json_value(position: str, value: Any, suspicious: bool) -> Found | Bad:
    if not isinstance(value, dict):
        return _no_object(position, value)
    if suspicious and damaged(json.dumps(value, ensure_ascii=False)):
        return Bad(position, "undecodable")
    over = any(isinstance(cell, str) and len(cell) > MAX_CELL for cell in value.values())
    return _too_long(position) if over else Found(position, value)


def _no_object(position: str, value: Any) -> Bad:
    return Bad(position, "bad_json", f"an object is expected, found {type(value).__name__}")


def _bad_json(position: str, error: object) -> Bad:
    return Bad(position, "bad_json", "nested too deep" if isinstance(error, RecursionError) else str(error)[:200])


def _too_long(position: str) -> Bad:
    return Bad(position, "too_long", f"over {MAX_CELL >> 20} MB")


def _end_of_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start
