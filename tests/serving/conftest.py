from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from openai import OpenAI

from tests.serving.support import Pixel, Words, running


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with running({"words": Words(), "pixel": Pixel()}) as url:
        yield url


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start servers of its own kind for one test."""
    with ExitStack() as stack:
        yield lambda models, waiting=64: stack.enter_context(running(models, waiting))


@pytest.fixture(scope="session")
def openai(url: str) -> OpenAI:
    return OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield client
