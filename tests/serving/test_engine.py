"""Queueing and leaving, seen from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serving.support import Words, eventually

ASKED = {"model": "words", "prompt": "a", "max_tokens": 60, "seed": 0}


def ask(url: str, **fields: object) -> httpx.Response:
    return httpx.post(url + "/v1/completions", json={**ASKED, **fields}, trust_env=False, timeout=30)


def leave_a_stream(url: str, words: Words) -> None:
    with httpx.stream("POST", url + "/v1/completions", json={**ASKED, "stream": True}, trust_env=False):
        eventually(lambda: words.steps == 3)


def leave_a_whole_answer(url: str, words: Words) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url + "/v1/completions", json=ASKED, trust_env=False, timeout=0.5)


def leave_the_queue(url: str, words: Words) -> None:
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, url, max_tokens=4)
        eventually(lambda: words.steps == 3)
        leave_a_whole_answer(url, words)
        see_who_left(url)
        words.gate.release()
        assert first.result().status_code == 200


def see_who_left(url: str) -> None:
    """The server's loop meets the end of a connection before a request that was made after it."""
    for _ in range(5):
        httpx.get(url + "/health", trust_env=False)


@pytest.mark.parametrize("leave", [leave_a_stream, leave_a_whole_answer, leave_the_queue])
def test_the_model_stops_within_one_step_of_the_client_leaving(
    serve: Callable[..., str], leave: Callable[[str, Words], None]
) -> None:
    words = Words(threading.Semaphore(3))
    url = serve({"words": words})
    leave(url, words)
    see_who_left(url)
    words.gate.release(100)
    eventually(lambda: not words.open)
    assert words.steps <= 4
    assert ask(url, max_tokens=2).json()["choices"][0]["text"] == "word0-0 word0-1 "


def test_a_full_queue_answers_503_and_when_to_try_again(serve: Callable[..., str]) -> None:
    words = Words(threading.Semaphore(0))
    url = serve({"words": words}, waiting=2)
    with ThreadPoolExecutor() as pool:
        replies = [pool.submit(ask, url, max_tokens=1)]
        eventually(lambda: words.open == 1)
        replies += [pool.submit(ask, url, max_tokens=1) for _ in range(3)]
        eventually(lambda: any(r.done() for r in replies))
        words.gate.release(10)
        refused = [r.result() for r in replies if r.result().status_code == 503]
    assert len(refused) == 1
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["error"]["code"] == "overloaded"


def test_a_model_computes_one_request_at_a_time_and_answers_all(serve: Callable[..., str]) -> None:
    words = Words()
    url = serve({"words": words})
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda seed: ask(url, seed=seed, max_tokens=3).json()["choices"][0]["text"], range(24)))
    assert texts == [f"word{seed}-0 word{seed}-1 word{seed}-2 " for seed in range(24)]
    assert words.most_open == 1
