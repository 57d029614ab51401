"""Only whole checkpoints are found, the newest first, and no more than two are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flywheel import checkpoint


def save(root: Path, step: int) -> Path:
    def write(directory: Path) -> None:
        (directory / "weights").write_bytes(b"w" * 100 + bytes([step]))
        (directory / "state").write_text(str(step))

    return checkpoint.save(root, step, write)


def test_the_newest_of_two_is_found(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    for step in (5, 90, 100):
        save(tmp_path, step)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    step, directory = found
    assert (step, (directory / "state").read_text()) == (100, "100")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-90"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda d: (d / "weights").write_bytes(b"w"),
        lambda d: (d / "weights").unlink(),
        lambda d: (d / checkpoint.MANIFEST).unlink(),
        lambda d: (d / checkpoint.MANIFEST).write_text("{"),
        lambda d: (d / checkpoint.MANIFEST).write_text("{}"),
        lambda d: (d / checkpoint.MANIFEST).write_text("[1]"),
        shutil.rmtree,
    ],
)
def test_a_torn_one_is_passed_over_and_can_be_written_again(tmp_path: Path, harm: object) -> None:
    save(tmp_path, 1)
    harm(save(tmp_path, 2))  # type: ignore[operator]
    assert checkpoint.newest(tmp_path) == (1, tmp_path / "checkpoint-1")
    save(tmp_path, 2)
    assert checkpoint.newest(tmp_path) == (2, tmp_path / "checkpoint-2")


def test_a_save_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def write(directory: Path) -> None:
        (directory / "weights").write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        checkpoint.save(tmp_path, 2, write)
    assert checkpoint.newest(tmp_path) == (1, tmp_path / "checkpoint-1")
