"""A judge: a language model behind any OpenAI-compatible `/chat/completions`. What it said once is not asked again.

The endpoint is named by whoever writes the recipe, so loopback and addresses inside a net are as good as any other;
redirects are not followed, and proxies of the environment play no part, so that a key goes to that endpoint alone.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from flywheel import lines
from flywheel.errors import ServingError

BUSY = (408, 409, 429, 500, 502, 503, 504)
"""Answers after which a question is asked again."""
MAX_BYTES = 4 << 20
"""Of one answer."""
SHOWN = 300
"""Characters of a refusal that a message repeats."""


@dataclass(frozen=True)
class Endpoint:
    """Which model is asked where, and how it answers: greedily, and with a seed where it draws all the same."""

    url: str
    """Up to `/v1`, as OpenAI's clients take it."""
    model: str
    key: str = field(default="", repr=False)
    """Sent as a bearer token, and shown nowhere."""
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True)
class Patience:
    """What the questions may cost."""

    at_once: int = 8
    """Requests under way at a time."""
    seconds: float = 120.0
    """Of one attempt."""
    attempts: int = 6
    backoff: float = 1.0
    """Seconds before the second attempt; they double."""
    wait: float = 60.0
    """Seconds between two attempts at most, whatever Retry-After says."""


class _Response(NamedTuple):
    status: int
    retry_after: str
    body: bytes


def ask(
    endpoint: Endpoint, questions: Sequence[str], kept: Path | None = None, patience: Patience = Patience()
) -> list[str]:
    """What the judge says to each question, in order; equal questions are asked once.

    Answers are kept in the directory `kept` as they come, so that neither another run nor one after a kill asks again;
    an empty one is returned and not kept, since a judge that is repaired says something.
    Raises ServingError where the endpoint does not answer, or refuses.
    """
    names = [_digest([endpoint.url, endpoint.model, endpoint.max_tokens, endpoint.seed, q]) for q in questions]
    file = None if kept is None else kept / f"{_digest([endpoint.url, endpoint.model])}.jsonl"
    known = {} if file is None else {name: said for name, said in lines.pairs(file) if _says(said)}
    missing = {name: question for name, question in zip(names, questions, strict=True) if name not in known}
    line = _Line(endpoint, patience)
    with line.client, ThreadPoolExecutor(patience.at_once) as pool:
        under_way = {pool.submit(line.reply, question): name for name, question in missing.items()}
        try:
            for done in as_completed(under_way):
                name, reply = under_way[done], done.result()
                known[name] = reply
                if file is not None and _says(reply):
                    lines.append(file, [name, reply])
        except BaseException:
            line.ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [known[name] for name in names]


class _Line:
    """The connection to one endpoint."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        self.endpoint, self.patience = endpoint, patience
        self.ended = threading.Event()
        """Set where the others need not go on."""
        self._place = f"{endpoint.url.rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        self._key = _any_form(endpoint.key) if endpoint.key else None
        self.client = httpx.Client(headers=headers, timeout=patience.seconds, trust_env=False)

    def reply(self, question: str) -> str:
        """The text of the answer, after as many attempts as it takes. Raises ServingError."""
        for attempt in range(self.patience.attempts):
            found, patience = "", ""
            try:
                response = self._post(question)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                found = self._masked(f"{type(error).__name__}: {error}")
            else:
                if response.status == 200:
                    return self._content(response.body)
                found, patience = f"status {response.status}: {self._shown(response.body)}", response.retry_after
                if response.status not in BUSY:
                    break
            if attempt + 1 == self.patience.attempts or self.ended.wait(self._pause(attempt, patience)):
                break
        raise self._error(found)

    def _post(self, question: str) -> _Response:
        endpoint = self.endpoint
        asked = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "seed": endpoint.seed,
            "max_tokens": endpoint.max_tokens,
        }
        end = time.monotonic() + self.patience.seconds
        with self.client.stream("POST", self._place, json=asked) as answer:
            body = bytearray()
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES or time.monotonic() > end:
                    raise httpx.ReadError(f"more than {MAX_BYTES:,} bytes or {self.patience.seconds:g} seconds")
            return _Response(answer.status_code, answer.headers.get("retry-after", ""), bytes(body))

    def _content(self, body: bytes) -> str:
        try:
            return str(json.loads(body)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError, RecursionError):
            raise self._error(f"no chat completion: {self._shown(body)}") from None

    def _pause(self, attempt: int, retry_after: str) -> float:
        asked = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return min(self.patience.wait, max(asked, self.patience.backoff * 2.0**attempt))

    def _shown(self, body: bytes) -> str:
        """The beginning of a body, without the key, which some servers repeat."""
        return self._masked(body.decode(errors="replace"))[:SHOWN]

    def _masked(self, text: str) -> str:
        return text if self._key is None else self._key.sub("***", text)

    def _error(self, found: str) -> ServingError:
        return ServingError(
            f"judge {self.endpoint.model} at {self._place}",
            found=found,
            expected="an answer in the shape of OpenAI's chat completions",
            remedy="start it, or correct `url` (up to /v1), `model` or `api_key_env` of the judge",
        )


def _says(reply: Any) -> bool:
    return isinstance(reply, str) and bool(reply.strip())


def _any_form(key: str) -> re.Pattern[str]:
    """Matches a key as it is, and escaped as JSON (once or twice), a URL or HTML does it, in whole or in part."""
    return re.compile("".join(map(_any_form_of, key)))


def _any_form_of(c: str) -> str:
    code = f"{ord(c):02x}"
    coded = rf"(?i:\\{{1,3}}u00{code}|%(?:25)?{code}|&#x0*{code};|&#0*{ord(c)};)"
    return rf"(?:\\{{0,3}}{re.escape(c)}|{coded}|{re.escape(html.escape(c))})"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
