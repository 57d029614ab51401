"""The page on which people review a batch: one HTML file, and four routes on loopback.

What models wrote is hostile: the page shows it as text alone, and its policy admits no script, style, picture or
connection but its own. A rater is whoever gives a name; each sees only their own verdicts.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response

from flywheel import review
from serving import refusals
from serving.__main__ import bind
from serving.guard import Guard
from serving.refusals import Refusal

PAGE = Path(__file__).with_name("review.html")
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(batch: Path) -> FastAPI:
    """An ASGI application that shows a batch and appends verdicts beside it. Raises SourceError where it is none."""
    opened, page = review.open_batch(batch), PAGE.read_text(encoding="utf-8")
    known = review.verdicts(opened)
    latest = {(v.item, v.rater): v for v in known}
    app = FastAPI(title="Review", openapi_url=None, redirect_slashes=False)
    app.add_middleware(Guard)
    refusals.install(app)

    @app.middleware("http")
    async def answer_safely(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call(request)
        response.headers.update(SAFE)
        return response

    @app.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy(page)})

    @app.get("/api/batch")
    async def items() -> dict[str, Any]:
        return {"batch": opened.digest, "name": batch.name, "points": review.POINTS, **opened.batch.model_dump()}

    @app.get("/api/verdicts")
    async def mine(rater: str = Query(min_length=1, max_length=80)) -> list[review.Verdict]:
        return [verdict for (_, name), verdict in latest.items() if name == rater.strip()]

    @app.post("/api/verdicts", status_code=201)
    async def take(verdict: review.Verdict, request: Request) -> dict[str, str]:
        require_own_page(request)
        if fault := opened.fault(verdict):
            raise Refusal(422, fault)
        await asyncio.to_thread(review.save, opened, verdict, time.time())
        latest[verdict.item, verdict.rater] = verdict
        return {"item": verdict.item}

    return app


def require_own_page(request: Request) -> None:
    """Raise Refusal for a request that another site's page makes in a rater's browser."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    foreign = origin is not None and origin != f"http://{host}"
    if foreign or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "verdicts are taken from this server's own page only", code="foreign_origin")


def policy(page: str) -> str:
    """A content security policy that admits what the page itself holds, by its sha256, and nothing else."""
    digests = {
        kind: " ".join(f"'sha256-{_sha256(text)}'" for text in re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL))
        for kind in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {digests['script']}; style-src {digests['style']}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def run(batch: Path, port: int) -> None:
    """Serve the page on loopback until SIGTERM or Ctrl-C; port 0 takes a free one."""
    app, listener = create_app(batch), bind("127.0.0.1", port)
    listener.listen()
    print(f"review {batch} at http://127.0.0.1:{listener.getsockname()[1]}; Ctrl-C ends", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)).run([listener])
