"""HTTP for sources: only public addresses, with caps on bytes, time and redirects, and patience with busy servers.

An address is checked where the socket connects: a host is resolved once, every address it has must be public, and the
socket goes to exactly the one that was checked. So there is no moment in which a name could change its meaning, and a
redirect is checked like a first request. Proxies, cookies and .netrc of the environment play no part.
"""

from __future__ import annotations

import gzip
import io
import random
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any

import httpcore
import httpx

from flywheel.errors import FetchError
from flywheel.sources.addresses import authority, is_public, parse, shown

AGENT = f"flywheel/{metadata.version('flywheel-mlops')}"
BUSY = (429, 502, 503, 504)
"""Answers after which a request is repeated."""
MOVED = (301, 302, 303, 307, 308)
TRANSIENT = ("unreachable", "timeout")
"""Reasons of a FetchError after which a request is repeated."""

Connect = Callable[[str, int, float], httpcore.NetworkStream]
"""Opens a connection to an IP address and port within some seconds; raises httpcore's errors."""
Resolve = Callable[[str, int], Iterable[str]]
"""The IP addresses of a host; raises OSError."""
Wanted = Callable[[int, httpx.Headers], bool]
"""Whether the body that follows a status and headers is worth reading."""


@dataclass(frozen=True)
class Limits:
    """What one request may cost."""

    bytes: int = 50 << 20
    """Of a body, on the wire and decoded."""
    seconds: float = 120.0
    """Of one attempt, redirects included."""
    redirects: int = 5
    attempts: int = 5
    backoff: float = 0.5
    """Seconds before the second attempt; they double, and up to half of them is taken off by chance."""
    wait: float = 60.0
    """Seconds between two attempts at most, whatever Retry-After says."""


@dataclass(frozen=True)
class Response:
    """An answer that was read to its end."""

    url: str
    """Where it came from after redirects."""
    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)
    """Decoded; empty where it was not wanted."""


def open_stream(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
    """A connection to an IP address."""
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=seconds)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order of the operating system's preference."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Client:
    """GET requests, one at a time; the caller's own headers never go to another origin.

    `allowed` names `host:port` pairs that may be asked although they are not public; it comes from the operator, never
    from a recipe. `connect`, `resolve` and `sleep` stand for the outside world.
    """

    def __init__(
        self,
        allowed: frozenset[str] = frozenset(),
        limits: Limits = Limits(),
        *,
        seed: int = 0,
        connect: Connect = open_stream,
        resolve: Resolve = resolve,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limits, self._sleep, self._chance = limits, sleep, random.Random(seed)
        self._network = _Network(allowed, connect, resolve)
        self._pool = httpcore.ConnectionPool(max_connections=4, network_backend=self._network)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()

    def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        follow: bool = True,
        wanted: Wanted | None = None,
    ) -> Response:
        """Ask, again where the server is busy or the connection fails, and return the last answer of any status.

        `follow` goes where redirects point; `wanted` decides whether a body is read. Raises FetchError: `address`,
        `unknown_host`, `unreachable`, `timeout`, `too_many_redirects`, `too_large`, `bad_encoding`, `bad_header`.
        """
        target = parse(url)
        attempt = 0
        while True:
            attempt += 1
            patience = ""
            try:
                response = self._follow(target, headers or {}, follow, wanted)
                if response.status not in BUSY or attempt == self.limits.attempts:
                    return response
                patience = response.headers.get("retry-after", "")
            except FetchError as error:
                if error.reason not in TRANSIENT or attempt == self.limits.attempts:
                    raise
            self._sleep(self._pause(attempt, patience))

    def _pause(self, attempt: int, patience: str) -> float:
        asked = retry_after(patience)
        backoff = self.limits.backoff * 2 ** (attempt - 1) * self._chance.uniform(0.5, 1)
        return min(self.limits.wait, backoff if asked is None else asked)

    def _follow(self, target: httpx.URL, headers: Mapping[str, str], follow: bool, wanted: Wanted | None) -> Response:
        self._network.deadline = time.monotonic() + self.limits.seconds
        first = _origin(target)
        for _ in range(self.limits.redirects + 1):
            mine = headers if _origin(target) == first else {}
            response = self._ask(target, mine, wanted)
            place = response.headers.get("location")
            if not follow or response.status not in MOVED or not place:
                return response
            target = join(target, place)
        raise FetchError(
            f"address {shown(str(target))}",
            reason="too_many_redirects",
            found=f"more than {self.limits.redirects} redirects",
            remedy="write the address where they end",
        )

    def _ask(self, target: httpx.URL, headers: Mapping[str, str], wanted: Wanted | None) -> Response:
        address = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
        try:
            sent = httpx.Headers({"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "gzip, deflate"})
            sent.update(headers)
            with self._pool.stream("GET", address, headers=sent.raw) as answer:
                found = httpx.Headers(answer.headers)
                read = answer.status not in MOVED and (wanted is None or wanted(answer.status, found))
                raw = self._read(answer, found, target) if read else b""
        except (httpcore.LocalProtocolError, UnicodeError):  # their messages quote the header, which may be secret
            raise _failed(target, "bad_header", "a header with a character that cannot be sent") from None
        except (httpcore.TimeoutException, TimeoutError):
            raise _failed(target, "timeout", "no answer in time") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ssl.SSLError) as error:
            raise _failed(target, "unreachable", _said(error)) from None
        return Response(str(target), answer.status, found, self._decoded(raw, found, target))

    def _read(self, answer: httpcore.Response, headers: httpx.Headers, target: httpx.URL) -> bytes:
        declared, parts, size = headers.get("content-length", ""), [], 0
        if declared.isdecimal() and len(declared) < 20 and int(declared) > self.limits.bytes:
            raise self._too_large(target)
        for part in answer.iter_stream():
            parts.append(part)
            size += len(part)
            if size > self.limits.bytes:
                raise self._too_large(target)
        return b"".join(parts)

    def _decoded(self, raw: bytes, headers: httpx.Headers, target: httpx.URL) -> bytes:
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding in ("", "identity") or not raw:
            return raw
        try:
            return inflate(raw, encoding, self.limits.bytes)
        except OverflowError:
            raise self._too_large(target) from None
        except ValueError as error:
            raise _failed(target, "bad_encoding", str(error)) from None

    def _too_large(self, target: httpx.URL) -> FetchError:
        return _failed(target, "too_large", f"more than {self.limits.bytes} bytes")


def join(base: httpx.URL, place: str) -> httpx.URL:
    """The address of a link or redirect on a page. Raises FetchError (`address`)."""
    try:
        return parse(str(base.join(place.strip())))
    except (httpx.InvalidURL, ValueError, UnicodeError):
        return parse(place.strip())


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """Undo `gzip` (any number of members) or `deflate` (zlib or raw), never making more than `limit` bytes + 1.

    Raises OverflowError beyond the limit and ValueError where the bytes are damaged or the encoding is another.
    """
    try:
        if encoding in ("gzip", "x-gzip"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                found = file.read(limit + 1)
        elif encoding == "deflate":
            # Most servers send zlib's frame, as the standard says; some send the bare stream.
            framed = len(data) > 1 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            engine = zlib.decompressobj(15 if framed else -15)
            found = engine.decompress(data, limit + 1)
            if not engine.eof and len(found) <= limit:
                raise ValueError("deflate ends too early")
        else:
            raise ValueError(f"content encoding `{encoding[:40]}`, which was not asked for")
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(str(error)) from None
    if len(found) > limit:
        raise OverflowError(f"more than {limit} bytes")
    return found


def retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where it says nothing."""
    value = value.strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


# ---------------------------------------------------------------- where sockets connect


class _Network(httpcore.NetworkBackend):
    """Opens connections for the pool: the one place where a host becomes an address."""

    def __init__(self, allowed: frozenset[str], connect: Connect, resolve: Resolve) -> None:
        self._allowed, self._connect, self._resolve = allowed, connect, resolve
        self.deadline = 0.0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in self._addresses(host, port):
            try:
                return _Stream(self._connect(address, port, min(10.0, self.left())), self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        """Where to connect. One address that is not public condemns them all: an honest host has none."""
        try:
            addresses = list(dict.fromkeys(self._resolve(host, port)))
        except (OSError, UnicodeError, ValueError) as error:
            later = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            reason = "unreachable" if later else "unknown_host"
            raise FetchError(f"host {host[:100]}", reason=reason, found=_said(error)) from None
        name = f"[{host}]" if ":" in host else host.rstrip(".")
        if f"{name}:{port}" not in self._allowed and not all(map(is_public, addresses)):
            raise FetchError(
                f"host {host[:100]}",
                reason="address",
                found="it resolves to an address that is not public",
                expected="a host of the public internet",
                remedy=f"if it is meant, set FLYWHEEL_ALLOWED_HOSTS={name[:100]}:{port} where flywheel runs",
            )
        return addresses

    def left(self) -> float:
        """Seconds until the deadline. Raises httpcore.ReadTimeout past it."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise httpcore.ReadTimeout("past the deadline")
        return seconds


class _Stream(httpcore.NetworkStream):
    """A connection on which every wait ends at the deadline of the request that uses it, however slow the drip."""

    def __init__(self, stream: httpcore.NetworkStream, network: _Network) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._network.left()), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _origin(url: httpx.URL) -> tuple[str, str]:
    return url.scheme, authority(url)


def _failed(target: httpx.URL, reason: str, found: str) -> FetchError:
    return FetchError(f"address {shown(str(target))}", reason=reason, found=found)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
