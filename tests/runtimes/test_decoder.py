"""The ONNX decoder against torch, and its streaming."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from flywheel.runtimes.base import Chunk, Sampling
from tests.tiny_decoder import TEXT, Tiny

PROMPTS = [np.arange(3, 3 + length) for length in (4, 30, 1)]
RANDOM = Sampling(max_new_tokens=60, temperature=1.2, top_k=40, top_p=0.9, seed=3, ignore_eos=True)


def joined(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_logits_equal_torch(tiny: Tiny) -> None:
    for prompt in PROMPTS:
        assert tiny.decoder.forward(prompt) == pytest.approx(tiny.torch.forward(prompt), abs=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=128, ignore_eos=True), RANDOM])
def test_tokens_equal_torch(tiny: Tiny, sampling: Sampling) -> None:
    own, reference = tiny.decoder.generate(PROMPTS, sampling), tiny.torch.generate(PROMPTS, sampling)
    assert [ids.tolist() for ids in own] == [ids.tolist() for ids in reference]
    assert len(set(own[0].tolist())) > 10


def test_prompts_side_by_side_are_what_they_are_alone(tiny: Tiny) -> None:
    greedy = Sampling(max_new_tokens=40, ignore_eos=True)
    together = tiny.decoder.generate(PROMPTS * 7, greedy)
    alone = [tiny.decoder.generate([prompt], greedy)[0] for prompt in PROMPTS] * 7
    assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]


def test_generation_ends_before_the_end_token(tiny: Tiny) -> None:
    decoder, greedy = tiny.decoder, Sampling(max_new_tokens=40, ignore_eos=True)
    free = decoder.generate(PROMPTS, greedy)
    decoder.eos = frozenset([int(free[0][5])])
    ended = decoder.generate(PROMPTS, replace(greedy, ignore_eos=False))
    first = free[0].tolist().index(free[0][5])
    assert ended[0].tolist() == free[0][:first].tolist()
    chunks = list(decoder._stream(PROMPTS[0], replace(greedy, ignore_eos=False)))
    assert chunks[-1].finish_reason == "stop"
    assert sum(chunk.tokens for chunk in chunks) == first


def test_log_likelihood_of_windows(tiny: Tiny) -> None:
    windows = [np.arange(3, 60), np.arange(5, 40)]
    own = tiny.decoder.log_likelihood(windows, [1, 10])
    assert [scores.shape for scores in own] == [(56,), (25,)]
    logits = tiny.torch.forward(windows[1]).astype(np.float64)
    expected = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[np.arange(9, 34), windows[1][10:]]
    assert own[1] == pytest.approx(expected, abs=1e-4)


def test_stream_is_the_decoded_text(tiny: Tiny) -> None:
    decoder = tiny.decoder
    chunks = list(decoder.stream(TEXT[:30], RANDOM))
    ids = decoder.generate([decoder.tokenizer.encode(TEXT[:30]).ids], RANDOM)[0]
    assert joined(chunks) == decoder.tokenizer.decode(ids.tolist())
    assert sum(chunk.tokens for chunk in chunks) == len(ids) == 60
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]


def test_characters_split_over_tokens_come_whole(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "☃ naïve 🎈🎈 Größe 漢字"
    decoder = tiny.decoder
    ids = decoder.tokenizer.encode(text).ids
    assert len(ids) > len(text)
    monkeypatch.setattr(decoder, "_tokens", lambda prompt, sampling: iter(ids))
    chunks = list(decoder.stream("a", Sampling(max_new_tokens=len(ids))))
    assert joined(chunks) == text
    assert all("\ufffd" not in chunk.text for chunk in chunks)


def test_text_ends_before_a_stop_string(tiny: Tiny) -> None:
    whole = joined(list(tiny.decoder.stream("the", RANDOM)))
    stop = whole[20:24]
    chunks = list(tiny.decoder.stream("the", replace(RANDOM, stop=("never there", stop))))
    assert joined(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"


def test_what_does_not_fit_is_refused_at_once(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"context is 192 tokens; \d+ in the prompt and max_new_tokens=190"):
        tiny.decoder.stream("the quick", Sampling(max_new_tokens=190))
    with pytest.raises(ValueError, match="the prompt is empty"):
        tiny.decoder.stream("", Sampling())
    with pytest.raises(ValueError, match="context is 192 tokens; 193 were asked for"):
        tiny.decoder.forward(np.zeros(193, dtype=np.int64))


def test_streams_in_several_threads_do_not_disturb_each_other(tiny: Tiny) -> None:
    decoder = tiny.decoder
    alone = [joined(list(decoder.stream(prompt, RANDOM))) for prompt in ("the", "fox", "dog")]
    found: dict[int, str] = {}
    prompts = enumerate(("the", "fox", "dog"))

    def run(place: int, prompt: str) -> None:
        found[place] = joined(list(decoder.stream(prompt, RANDOM)))

    threads = [threading.Thread(target=run, args=pair) for pair in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[place] for place in range(3)] == alone
