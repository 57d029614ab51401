"""Directories for work in progress, and what a killed process leaves of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.scratch import scratch

HOLD = """
import sys, time
from pathlib import Path
from flywheel.scratch import scratch
with scratch(Path(sys.argv[1]), "work-") as place:
    (place / "half").write_text("of it")
    print(place, flush=True)
    time.sleep(60)
"""


def test_it_is_gone_in_the_end_whatever_happened(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), scratch(tmp_path, "work-") as place:
        place.write_text("is a directory")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with scratch(tmp_path, "work-") as ours:
            assert {theirs, ours} == set(tmp_path.iterdir())
        other.kill()
    assert (theirs / "half").exists()
    with scratch(tmp_path, "work-") as ours:
        assert list(tmp_path.iterdir()) == [ours]


def test_what_is_not_of_its_making_stays(tmp_path: Path) -> None:
    (tmp_path / "work-of-others").mkdir()
    with scratch(tmp_path, "work-"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["work-of-others"]
