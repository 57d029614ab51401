from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.energy import Meter


def package(root: Path, number: int, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("10000000000\n")
    return folder


def test_packages_are_added_up(tmp_path: Path) -> None:
    package(tmp_path, 0, 5_000_000)
    package(tmp_path, 1, 0)
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of package 0
    with Meter(tmp_path) as meter:
        package(tmp_path, 0, 1_805_000_000)
        package(tmp_path, 1, 1_800_000_000)
    assert meter.kilowatt_hours == pytest.approx(3600 / 3.6e6)


def test_a_counter_that_starts_again_counts_on(tmp_path: Path) -> None:
    package(tmp_path, 0, 9_999_000_000)
    with Meter(tmp_path) as meter:
        package(tmp_path, 0, 2_000_000)
        meter.look()
    assert meter.kilowatt_hours == pytest.approx(3 / 3.6e6)


def test_nothing_is_told_where_there_is_no_counter(tmp_path: Path) -> None:
    with Meter(tmp_path / "none") as meter:
        pass
    assert meter.kilowatt_hours is None
