"""Start a server as a child process, and ask it one question: is the model that was deployed the one that answers?"""

from __future__ import annotations

import base64
import binascii
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from flywheel.errors import ServingError
from flywheel.runtimes.base import Kind

START_SECONDS = 120
STOP_SECONDS = 70
"""Longer than the server takes to drain."""
PNG = b"\x89PNG\r\n\x1a\n"


class Server:
    """A running server. Leaving the `with` block, or the death of this process, ends it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path, scratch: Path) -> None:
        self.process, self.url, self.log, self._scratch = process, url, log, scratch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Let it finish what is under way; its exit status (0 when it ended in order)."""
        status = _stop(self.process)
        shutil.rmtree(self._scratch, ignore_errors=True)
        return status


def start(bundles: Mapping[str, Path], port: int = 0, log: Path | None = None) -> Server:
    """Serve bundles by name; returns when they answer. Raises ServingError with the end of the log.

    `log` takes the server's output; without it a temporary file does.
    """
    scratch = Path(tempfile.mkdtemp(prefix="flywheel-serving-"))
    log, port_file = log or scratch / "server.log", scratch / "port"
    named = [argument for name, path in bundles.items() for argument in ("--bundle", f"{name}={path}")]
    command = [sys.executable, "-m", "serving", *named, "--port", str(port), "--port-file", str(port_file)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--until-stdin-closes"], stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        return Server(process, _wait(process, port_file, log), log, scratch)
    except BaseException:
        _stop(process)
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def smoke(url: str, name: str, kind: Kind, prompt: str) -> dict[str, Any]:
    """Ask one question and return `model`, `prompt`, `answer` (text, or a PNG as base64) and `seconds`.

    Raises ServingError when there is no answer, or an empty or malformed one.
    """
    began = time.monotonic()
    body = {"model": name, "prompt": prompt, "seed": 0}
    try:
        if kind == "text":
            reply = _post(url + "/v1/completions", {**body, "temperature": 0, "max_tokens": 64})
            answer = str(reply["choices"][0]["text"])
            sound = answer != ""
        else:
            answer = str(_post(url + "/v1/images/generations", body)["data"][0]["b64_json"])
            sound = base64.b64decode(answer, validate=True).startswith(PNG)
    except (httpx.HTTPError, LookupError, TypeError, ValueError, binascii.Error) as error:
        raise _unsound(name, repr(error)) from error
    if not sound:
        raise _unsound(name, repr(answer[:80]))
    return {"model": name, "prompt": prompt, "answer": answer, "seconds": time.monotonic() - began}


def _post(url: str, body: Mapping[str, Any]) -> Any:
    response = httpx.post(url, json=body, timeout=120, trust_env=False)
    if response.is_error:
        raise httpx.HTTPStatusError(response.text, request=response.request, response=response)
    return response.json()


def _unsound(name: str, found: str) -> ServingError:
    return ServingError(f"model {name}", found=found, expected="an answer", remedy="read the server's log")


def _wait(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> str:
    """The URL, as soon as the server is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.exists() and (port := port_file.read_text().strip()):
            url = f"http://127.0.0.1:{port}"
            with suppress(httpx.HTTPError):
                httpx.get(url + "/ready", timeout=START_SECONDS, trust_env=False).raise_for_status()
                return url
        time.sleep(0.05)
    found = "no answer" if process.poll() is None else f"exit status {process.returncode}"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ServingError(
        "the model server",
        found=f"{found}; the end of its log is\n{last}",
        expected=f"an answer within {START_SECONDS} s",
        remedy="correct what the log names, then start it again",
    )


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        if process.stdin:
            process.stdin.close()
