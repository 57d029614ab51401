"""Shared by all tests: nothing leaves the machine, and no test writes outside of its temporary directory."""

from __future__ import annotations

import os
import signal

import pytest

from infra.settings import stay_on_this_machine
from tests.postgres import postgres_url
from tests.s3 import s3, s3_server

__all__ = ["postgres_url", "s3", "s3_server"]

# A shell starts what it sends to the background with interrupts ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
stay_on_this_machine()
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "contract_*.py")
