"""A real PostgreSQL in a temporary directory: no TCP port, trust authentication over a Unix socket, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

USER, PASSWORD = "owner", "p@ss/wörd:1"


@contextmanager
def running() -> Iterator[str]:
    """The SQLAlchemy URL of an empty database, whose password has characters that a URL must quote.

    Skips where PostgreSQL is not installed, or where root has no other user to run it as.
    """
    binaries, drop = _binaries(), _drop_root()
    with tempfile.TemporaryDirectory(prefix="pg") as directory:
        home = Path(directory)
        (home / "password").write_text(PASSWORD)
        if drop:
            shutil.chown(home, "postgres")
        make = [binaries / "initdb", "-D", home / "data", "-U", USER, "--auth=scram-sha-256", "-E", "UTF8", "--no-sync"]
        _run([*drop, *make, f"--pwfile={home / 'password'}", "--locale=C.UTF-8"])
        serve = [binaries / "pg_ctl", "-D", home / "data", "-l", home / "log", "-s", "-w"]
        _run([*drop, *serve, "-o", f"-c listen_addresses='' -k {home} -F", "start"])
        try:
            yield f"postgresql+psycopg://{USER}:{quote(PASSWORD, safe='')}@/postgres?host={home}"
        finally:
            _run([*drop, *serve, "-m", "immediate", "stop"])


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """One PostgreSQL for all tests; each makes tables of its own."""
    with running() as url:
        yield url


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("PostgreSQL is not installed")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


def _drop_root() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") and subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode == 0:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return pytest.skip("PostgreSQL does not run as root, and there is no user postgres")


def _run(command: list[str | Path]) -> None:
    # A file, not a pipe: the server inherits it and would keep a pipe open.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(command, stdout=said, stderr=said, cwd="/", check=False)
        said.seek(0)
        assert done.returncode == 0, said.read().decode()
