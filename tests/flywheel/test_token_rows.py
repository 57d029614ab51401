"""Packed rows in memory and on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flywheel.modalities.token_rows import TokenRows, kept, windows
from flywheel.record import LeftOut


def rows() -> TokenRows:
    documents = [np.arange(1, n) for n in (5, 9, 3, 20)]
    return TokenRows(list(windows(documents, 8)), 8, 0, [LeftOut("a", "too_long", detail="9 tokens")])


def equal(one: TokenRows, other: TokenRows) -> bool:
    pairs = zip(map(one.__getitem__, range(len(one))), map(other.__getitem__, range(len(other))), strict=True)
    return one.left_out == other.left_out and all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)


def test_saved_rows_open_as_they_were(tmp_path: Path) -> None:
    rows().save(tmp_path / "train")
    opened = TokenRows.open(tmp_path / "train")
    assert equal(opened, rows())
    assert isinstance(opened.input_ids, np.memmap)


def test_kept_rows_are_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> TokenRows:
        made.append(1)
        return rows()

    for _ in range(2):
        assert equal(kept(tmp_path / "features" / "train", make), rows())
    assert len(made) == 1


def test_what_was_left_by_a_kill_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".train").mkdir()
    (tmp_path / ".train" / "labels.npy").write_bytes(b"half")
    assert equal(kept(tmp_path / "train", rows), rows())


def test_another_process_waits_for_the_one_that_leads(tmp_path: Path) -> None:
    def never() -> TokenRows:
        raise AssertionError("made twice")

    found = kept(tmp_path / "train", never, together=lambda: rows().save(tmp_path / "train"), leads=False)
    assert equal(found, rows())


def test_features_of_another_kind_are_not_kept(tmp_path: Path) -> None:
    assert kept(tmp_path / "train", lambda: [1, 2]) == [1, 2]
    assert not (tmp_path / "train").exists()


def test_a_batch_can_be_changed_without_touching_the_disk(tmp_path: Path) -> None:
    rows().save(tmp_path / "train")
    opened = TokenRows.open(tmp_path / "train")
    opened[0]["input_ids"].fill_(7)
    assert equal(opened, rows())
