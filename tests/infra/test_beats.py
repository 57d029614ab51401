from __future__ import annotations

import time

import pytest

from infra import beats
from infra.beats import Watch, beating
from infra.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings.load({"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_LEASE_SECONDS": "2"})


def test_a_run_that_beats_is_not_silent(settings):
    with beating(settings, "one"):
        watch, until = Watch(settings, "one"), time.monotonic() + 3
        while time.monotonic() < until:
            assert not watch.silent()
            time.sleep(0.1)


def test_a_run_that_has_stopped_beating_is(settings):
    watch = Watch(settings, "one")
    watch.file.parent.mkdir(parents=True)
    watch.file.write_text("7")
    assert not watch.silent()
    time.sleep(2.1)
    assert watch.silent() > 2


def test_a_run_that_has_not_begun_has_longer(settings, monkeypatch):
    watch = Watch(settings, "one")
    time.sleep(2.1)
    assert not watch.silent()
    monkeypatch.setattr(beats, "FIRST_SECONDS", 0)
    assert watch.silent() > 2
