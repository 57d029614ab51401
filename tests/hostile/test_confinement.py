"""What a parser that has been taken over cannot do, as long as it is Python, or uses libraries that are not broken."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel import landlock, seccomp
from flywheel.confinement import Answer, Caps
from flywheel.workers import Pool, Request
from tests.hostile import attacks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """One worker for all attacks: it must outlive each."""
    with pytest.MonkeyPatch.context() as patch, Pool(1) as pool:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        patch.setenv("HF_TOKEN", "hunter2")
        patch.setenv("DATABASE_URL", "postgresql://me:hunter2@db")
        patch.setenv("XDG_HARMLESS", "hunter2")
        yield pool
        assert len(pool._all) == 1


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The one directory that the attacker may write to."""
    path = tmp_path / "own"
    path.mkdir()
    return path


def attack(pool: Pool, function: Any, argument: Any, own: Path, **caps: Any) -> Answer:
    (answer,) = pool([Request(f"{attacks.__name__}:{function.__name__}", argument, Caps(str(own), **caps))])
    assert not (own / ".scratch").exists()
    return answer


def kernel_helps() -> bool:
    """Whether this Linux has both layers, with the sixth version of Landlock (6.12)."""
    libc = ctypes.CDLL(None)
    version = libc.syscall(landlock._CREATE, None, ctypes.c_size_t(0), 1)
    return bool(version >= 6 and os.uname().machine in seccomp._ARCHITECTURES)


needs_kernel = pytest.mark.skipif(not kernel_helps(), reason="this kernel has not all of Landlock and seccomp")


@needs_kernel
def test_it_cannot_connect(pool: Pool, own: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        answer = attack(pool, attacks.connect, server.getsockname()[1], own)
        assert answer.value == []
        assert len(answer.attempts) >= 3
        with pytest.raises(TimeoutError):
            server.accept()


@needs_kernel
def test_it_cannot_write_elsewhere_not_even_beside_its_directory(pool: Pool, own: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sentinel").write_text("as it was")
    before = (other / "sentinel").stat()
    assert attack(pool, attacks.write, str(other), own).value == []
    assert [path.name for path in other.iterdir()] == ["sentinel"]
    after = (other / "sentinel").stat()
    assert (other / "sentinel").read_text() == "as it was"
    assert (after.st_mode, after.st_mtime_ns, after.st_ino) == (before.st_mode, before.st_mtime_ns, before.st_ino)


@needs_kernel
def test_it_cannot_start_programs_or_processes(pool: Pool, own: Path, tmp_path: Path) -> None:
    marker = own / "marker"
    assert attack(pool, attacks.start, str(marker), own).value == []
    assert not marker.exists()


@needs_kernel
def test_it_cannot_harm_its_worker(pool: Pool, own: Path) -> None:
    assert attack(pool, attacks.harm, None, own).value == []


def test_it_does_not_see_keys_and_passwords(pool: Pool, own: Path) -> None:
    assert set(attack(pool, attacks.environment, None, own).value) <= ({"worker"} if not kernel_helps() else set())


def test_it_inherits_no_files(pool: Pool, own: Path) -> None:
    assert attack(pool, attacks.descriptors, None, own).value == []
    assert attack(pool, attacks.pipes, None, own).value == 1


@pytest.mark.parametrize(("function", "most"), [(attacks.take_files, 256), (attacks.take_threads, 1_000)])
def test_it_cannot_take_all_files_or_threads(pool: Pool, own: Path, function: Any, most: int) -> None:
    answer = attack(pool, function, None, own, memory=256 << 20)
    assert answer.fault or 0 < answer.value < most


@pytest.mark.parametrize("function", [attacks.take_disk, attacks.take_unnamed_disk, attacks.take_inodes])
def test_it_cannot_fill_the_disk(pool: Pool, own: Path, function: Any) -> None:
    answer = attack(pool, function, str(own), own, output=16 << 20)
    assert answer.fault in ("output", "error")
    for path in own.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("function", "argument", "fault"),
    [
        (attacks.answer_much, 32 << 20, "output"),
        (attacks.answer_nonsense, None, "crashed"),
        (attacks.close_everything, None, "crashed"),
        (attacks.nest, None, ("crashed", "error", "memory", "timeout")),
    ],
)
def test_odd_answers_are_faults(pool: Pool, own: Path, function: Any, argument: Any, fault: Any) -> None:
    assert attack(pool, function, argument, own, memory=256 << 20, seconds=5.0).fault in fault


@pytest.mark.parametrize("function", [attacks.leave, attacks.leave_setuid, attacks.dig, attacks.dig_native])
def test_it_leaves_ordinary_files_alone_behind(pool: Pool, own: Path, function: Any) -> None:
    assert attack(pool, function, str(own), own).fault in ("refused", "output")
    assert list(own.iterdir()) == []


def test_an_answer_says_what_it_took(pool: Pool, own: Path) -> None:
    answer = attack(pool, attacks.answer_much, 1 << 20, own)
    assert answer.fault == ""
    assert 0 < answer.seconds < 30
    assert 1 << 20 < answer.peak_bytes < 1 << 30
