from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flywheel import artifact
from flywheel.errors import ArtifactError


def build(store: Path, mark: str = "abc") -> artifact.Artifact:
    with artifact.locked(store, "train", mark) as building:
        (building.out / "weights").write_bytes(b"12345")
        target = artifact.location(store, "train", mark)
        return artifact.commit(building, target=target, recipe="r", ingredients={"recipe:a": "1"}, summary={"n": 1})


def test_a_committed_artifact_is_intact_and_reads_back(tmp_path: Path) -> None:
    made = build(tmp_path)
    assert artifact.intact(made.path) == made
    assert artifact.existing(tmp_path, "train") == [made]
    assert made.summary == {"n": 1}


@pytest.mark.parametrize("hurt", ["flip", "truncate", "delete", "add"])
def test_every_kind_of_damage_is_noticed(tmp_path: Path, hurt: str) -> None:
    made = build(tmp_path)
    file = made.path / "weights"
    {
        "flip": lambda: file.write_bytes(b"12344"),
        "truncate": lambda: file.write_bytes(b"1234"),
        "delete": file.unlink,
        "add": lambda: (made.path / "extra").write_text("x"),
    }[hurt]()
    assert artifact.intact(made.path) is None
    assert artifact.damage(made)


def test_a_damaged_record_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    made = build(tmp_path)
    (made.path / artifact.FILE).write_text("{")
    assert artifact.intact(made.path) is None
    assert artifact.existing(tmp_path, "train") == []
    with pytest.raises(ArtifactError):
        artifact.load(made.path)


def test_a_damaged_artifact_is_replaced_by_the_next_commit(tmp_path: Path) -> None:
    (build(tmp_path).path / "weights").write_bytes(b"junk!")
    assert artifact.intact(build(tmp_path).path)


def test_an_attempt_that_dies_leaves_no_artifact_but_keeps_its_work(tmp_path: Path) -> None:
    with artifact.locked(tmp_path, "train", "abc") as building:
        (building.out / "half").write_text("x")
        (building.work / "checkpoint").write_text("x")
    assert artifact.existing(tmp_path, "train") == []
    with artifact.locked(tmp_path, "train", "abc") as building:
        assert not list(building.out.iterdir())
        assert (building.work / "checkpoint").exists()


def test_two_builders_wait_for_each_other_and_a_killed_one_frees_the_lease(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from flywheel import artifact
import sys, time
with artifact.locked(Path({str(tmp_path)!r}), "train", "abc"):
    print("held", flush=True); time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    holder.kill()
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == "held\n"
    for process in (holder, waiter):
        process.kill()
        process.communicate()
