"""The sandbox of this machine, for the tests that run programs."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from flywheel.sandbox import Sandbox


def sandbox_or_skip() -> Sandbox:
    """A sandbox that works, or a skipped test."""
    works = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    if not shutil.which("bwrap") or subprocess.run(works, check=False).returncode:
        pytest.skip("bubblewrap is not installed or may not make name spaces")
    return Sandbox()
