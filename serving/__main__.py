"""`python -m serving --bundle NAME=DIR ... --port N`: serve bundles on this machine until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from flywheel.errors import FlywheelError, ServingError
from flywheel.runtimes.base import Runtime
from flywheel.runtimes.bundle import open_bundle
from serving.app import ROUTES, create_app
from serving.guard import require_loopback, verify

DRAIN_SECONDS = 60
"""How long requests that are under way may take after SIGTERM."""


def load(bundle: Path) -> Runtime:
    """The runtime of a bundle whose files are those of its sha256 manifest. Raises ServingError."""
    verify(bundle)
    try:
        return open_bundle(bundle)
    except FlywheelError:
        raise
    except Exception as error:  # whatever a parser says of a file that is not what it should be
        raise ServingError(
            f"bundle {bundle}", found=repr(error), expected="a bundle that export made", remedy="export the model again"
        ) from error


def main(arguments: Sequence[str] | None = None, load: Callable[[Path], Runtime] = load) -> int:
    """Exit status: 0 after SIGTERM, SIGINT or `--help`; 1 when the server cannot start; 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    if options.until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        listener = bind(options.host, options.port)
        serve({name: load(path) for name, path in options.bundle}, listener, options)
    except FlywheelError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def bind(host: str, port: int) -> socket.socket:
    """A socket on a loopback address; port 0 takes a free one. Raises ServingError."""
    require_loopback(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; without, each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise ServingError(
            f"{host}:{port}", found=str(error), expected="a free port", remedy="stop its owner, or give --port 0"
        ) from error
    return listener


def serve(models: Mapping[str, Runtime], listener: socket.socket, options: argparse.Namespace) -> None:
    """Answer on a bound socket until SIGTERM or SIGINT, then finish what is under way."""
    app = create_app(models, feedback=options.feedback)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=DRAIN_SECONDS
    )
    listener.listen(config.backlog)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"serving on {url}", *(f"  {n} ({ROUTES[m.kind]})" for n, m in models.items()), sep="\n", flush=True)
    if options.port_file:
        options.port_file.write_text(f"{port}\n")
    uvicorn.Server(config).run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument("--bundle", action="append", required=True, type=_bundle, metavar="NAME=DIR")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (there is no authentication yet)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free port (default 8080)")
    parser.add_argument("--port-file", type=Path, help="write the port here when the models are loaded")
    parser.add_argument("--feedback", type=Path, metavar="DIR", help="collect what users say of the answers in DIR")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that holds stdin")
    return parser


def _bundle(argument: str) -> tuple[str, Path]:
    name, _, directory = argument.partition("=")
    if not (name and directory):
        raise argparse.ArgumentTypeError(f"{argument!r} is not NAME=DIR")
    return name, Path(directory)


def _exit(signum: int, frame: FrameType | None) -> None:
    """Before the server runs: leave at once. After it: uvicorn raises the signal anew when it has drained."""
    sys.exit(0)


def _end_with_stdin() -> None:
    while os.read(0, 1024):  # not sys.stdin: a thread that holds its lock makes the interpreter abort at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
