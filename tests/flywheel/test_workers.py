"""Worker processes and what a confined function may not do."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from flywheel.confinement import Caps
from flywheel.errors import SourceError
from flywheel.workers import Pool, Request, value

HERE = "test_workers"


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def double(number: int) -> int:
    return 2 * number


def allocate(size: int) -> int:
    return len(bytearray(size))


def die(_: Any) -> None:
    os.abort()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def write(path: str) -> None:
    Path(path).write_text("here")


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=2)


def start(_: Any) -> None:
    os.system("true")


def link(target: str) -> None:
    os.symlink("/etc/passwd", target)


def refuse(argument: Any) -> Any:
    raise SourceError(argument, found="nothing", remedy="write it")


def run(function: Any, argument: Any, directory: Path, **caps: Any) -> Any:
    with Pool(1) as pool:
        (answer,) = pool([Request(f"{HERE}:{function.__name__}", argument, Caps(str(directory), **caps))])
    return answer


def test_answers_come_in_the_order_of_the_requests() -> None:
    with Pool(2) as pool:
        assert [a.value for a in pool([Request(f"{HERE}:double", n) for n in range(20)])] == [2 * n for n in range(20)]


def test_an_open_request_that_fails_answers_with_its_error_and_the_worker_lives() -> None:
    with Pool(1) as pool:
        first, second = pool([Request(f"{HERE}:double", None), Request(f"{HERE}:double", 2)])
    assert (first.fault, second.value) == ("error", 4)


def test_an_error_of_ours_is_raised_again_as_it_was() -> None:
    with Pool(1) as pool:
        (answer,) = pool([Request(f"{HERE}:refuse", "labels.csv")])
    with pytest.raises(SourceError) as raised:
        value(answer, "shard 1")
    assert str(raised.value) == str(SourceError("labels.csv", found="nothing", remedy="write it"))


@pytest.mark.parametrize(
    ("function", "argument", "fault"),
    [(allocate, 4 << 30, "memory"), (die, None, "crashed"), (sleep, 60, "timeout"), (start, None, "refused")],
)
def test_a_confined_function_that_goes_wrong_ends_alone(
    tmp_path: Path, function: Any, argument: Any, fault: str
) -> None:
    assert run(function, argument, tmp_path, seconds=1.0).fault == fault


def test_a_confined_function_writes_to_its_directory_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    assert run(write, str(inside / "file"), inside).fault == ""
    assert run(write, str(outside), inside).fault == "refused"
    assert run(link, str(outside), inside).fault == "refused"
    assert run(write, str(inside / ".." / "outside"), inside).fault == "refused"
    assert not outside.exists()


def test_a_confined_function_cannot_connect(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        assert run(connect, server.getsockname()[1], tmp_path).fault == "refused"
        with pytest.raises(TimeoutError):
            server.accept()


def test_workers_end_with_the_pool() -> None:
    with Pool(2) as pool:
        list(pool([Request(f"{HERE}:double", n) for n in range(4)]))
        workers = pool._all
    assert workers
    assert not any(worker.alive() for worker in workers)
