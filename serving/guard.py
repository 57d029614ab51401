"""What is refused early: addresses that others reach, bundles that were changed, foreign hosts, big bodies."""

from __future__ import annotations

import json
import time
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flywheel import artifact
from flywheel.errors import ServingError
from serving.refusals import Refusal, response

MAX_BODY = 1_000_000
"""Bytes of a request body."""
MANIFEST = "MANIFEST.json"
"""Beside a bundle: {"files": {relative path: sha256}}."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. No name but localhost counts; none is looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def require_loopback(host: str) -> None:
    """Raises ServingError: there is no authentication, so nobody but this machine may ask."""
    if not is_loopback(host):
        raise ServingError(
            f"--host {host}",
            found="an address that other machines may reach, on a server without authentication",
            expected="127.0.0.1, ::1 or localhost",
            remedy="bind 127.0.0.1 and put a reverse proxy that authenticates in front of it",
        )


def verify(bundle: Path) -> None:
    """Compare every file with the sha256 manifest beside it, where there is one.

    Raises ServingError for a missing, changed or unlisted file, and for a manifest that cannot be read.
    """
    manifest = bundle / MANIFEST
    if not manifest.exists():
        return
    try:
        listed = {str(name): str(digest) for name, digest in json.loads(manifest.read_bytes())["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _mismatch(bundle, f"{MANIFEST} cannot be read: {error!r}") from error
    present = {str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file()} - {MANIFEST}
    if different := sorted(present ^ listed.keys()):
        raise _mismatch(bundle, f"{different[0]} is {'not listed' if different[0] in present else 'missing'}")
    for name, digest in listed.items():
        if artifact.sha256(bundle / name) != digest:
            raise _mismatch(bundle, f"{name} does not match its sha256")


def _mismatch(bundle: Path, found: str) -> ServingError:
    return ServingError(
        f"bundle {bundle}", found=found, expected=f"the files of {MANIFEST}", remedy="export or fetch the model again"
    )


class Rate:
    """At most `burst` requests at once and `per_second` for long (a token bucket); used in one event loop."""

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second, self.burst = per_second, burst
        self._tokens, self._seen = float(burst), time.monotonic()

    def take(self) -> None:
        """Raises Refusal, with the seconds to wait, where there were too many."""
        now = time.monotonic()
        self._tokens = min(self.burst, self._tokens + (now - self._seen) * self.per_second)
        self._seen = now
        if self._tokens < 1:
            wait = {"Retry-After": str(int((1 - self._tokens) / self.per_second) + 1)}
            raise Refusal(429, "too many requests; try again later", code="rate_limit_exceeded", headers=wait)
        self._tokens -= 1


class Guard:
    """ASGI middleware: answers only to loopback names (a web page cannot rebind its own) and bounds the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not is_loopback(_hostname(headers.get(b"host", b""))):
            refusal = Refusal(400, "this server answers to loopback names only; ask it as 127.0.0.1 or localhost")
            await response(refusal)(scope, receive, send)
            return
        if _number(headers.get(b"content-length", b"0")) > MAX_BODY:
            await response(_too_large())(scope, receive, send)
            return
        await self.app(scope, _bounded(receive), send)


def _bounded(receive: Receive) -> Receive:
    """Count a body that does not say its length beforehand."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise _too_large()
        return message

    return counted


def _too_large() -> Refusal:
    return Refusal(413, f"the body is larger than {MAX_BODY:,} bytes", code="request_too_large")


def _hostname(header: bytes) -> str:
    try:
        return urlsplit("//" + header.decode("ascii")).hostname or ""
    except ValueError:
        return ""


def _number(header: bytes) -> int:
    return int(header) if header.isdigit() else 0
