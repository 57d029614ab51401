"""A web server of a test's own, on a free port of 127.0.0.1, that answers from a table and notes what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    body: bytes | str = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Answer | bytes | str | Callable[["Asked"], Answer]


@dataclass(frozen=True)
class Asked:
    path: str
    """With its query."""
    headers: Mapping[str, str]


@dataclass
class Server:
    """`routes` are looked up by path with query, then without; what is missing answers 404."""

    address: str
    """`127.0.0.1:port`, as operators allow it."""
    routes: dict[str, Route] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    @property
    def allowed(self) -> frozenset[str]:
        return frozenset((self.address,))

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        route = self.routes.get(asked.path) or self.routes.get(asked.path.partition("?")[0]) or Answer("no", 404)
        found = route(asked) if callable(route) else route
        return found if isinstance(found, Answer) else Answer(found, headers={"Content-Type": "text/html"})


@contextmanager
def serve(routes: dict[str, Route] | None = None) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = server.answer(Asked(self.path, dict(self.headers)))
            body = answer.body.encode() if isinstance(answer.body, str) else answer.body
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"127.0.0.1:{http.server_port}", dict(routes or {}))
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
