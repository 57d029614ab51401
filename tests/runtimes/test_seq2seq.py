"""The ONNX encoder-decoder against torch, and its streaming."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.errors import ServingError
from flywheel.runtimes.base import Chunk, Sampling
from flywheel.runtimes.bundle import open_bundle
from flywheel.runtimes.seq2seq import Seq2Seq
from tests.tiny_seq2seq import TEXT, TinySeq2Seq, build

PROMPTS = [np.arange(10, 10 + length) for length in (4, 30, 1)]
RANDOM = Sampling(max_new_tokens=60, temperature=1.2, top_k=40, top_p=0.9, seed=3, ignore_eos=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinySeq2Seq:
    return build(tmp_path_factory.mktemp("seq2seq"))


def joined(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_logits_equal_torch(made: TinySeq2Seq) -> None:
    for prompt in PROMPTS:
        assert made.runtime().forward(prompt) == pytest.approx(made.torch.forward(prompt), abs=1e-3)


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=90, ignore_eos=True), RANDOM])
def test_tokens_equal_torch(made: TinySeq2Seq, sampling: Sampling) -> None:
    own, reference = made.runtime().generate(PROMPTS, sampling), made.torch.generate(PROMPTS, sampling)
    assert [ids.tolist() for ids in own] == [ids.tolist() for ids in reference]
    assert len({int(i) for ids in own for i in ids}) > 10


def test_prompts_side_by_side_are_what_they_are_alone(made: TinySeq2Seq) -> None:
    runtime, greedy = made.runtime(), Sampling(max_new_tokens=40, ignore_eos=True)
    together = runtime.generate(PROMPTS * 12, greedy)
    alone = [runtime.generate([prompt], greedy)[0] for prompt in PROMPTS] * 12
    assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]


def test_likelihood_equals_torch(made: TinySeq2Seq) -> None:
    answers = [np.arange(20, 20 + n) for n in (7, 1, 25)]
    own, reference = (p.log_likelihood(PROMPTS, answers) for p in (made.runtime(), made.torch))
    for a, b in zip(own, reference, strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def test_int8_runs_and_stays_near(made: TinySeq2Seq) -> None:
    full, small = (made.runtime(p).forward(PROMPTS[1]) for p in ("fp32", "int8"))
    assert 0.9 < np.corrcoef(full.ravel(), small.ravel())[0, 1] < 1


def test_generation_ends_before_the_end_token(made: TinySeq2Seq) -> None:
    runtime, greedy = made.runtime(), Sampling(max_new_tokens=40, ignore_eos=True)
    free = runtime.generate(PROMPTS, greedy)
    first = next(i for i, token in enumerate(free[0]) if token not in free[0][:i] and i > 2)
    runtime.eos = frozenset([int(free[0][first])])
    assert runtime.generate(PROMPTS, replace(greedy, ignore_eos=False))[0].tolist() == free[0][:first].tolist()


def test_stream_is_the_decoded_text(made: TinySeq2Seq) -> None:
    runtime = made.runtime()
    chunks = list(runtime.stream(TEXT[:30], RANDOM))
    ids = runtime.generate([runtime.tokenizer.encode(TEXT[:30]).ids], RANDOM)[0]
    assert joined(chunks) == runtime.tokenizer.decode(ids.tolist())
    assert sum(chunk.tokens for chunk in chunks) == len(ids) == 60
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]


def test_text_ends_before_a_stop_string(made: TinySeq2Seq) -> None:
    whole = joined(list(made.runtime().stream("the", RANDOM)))
    stop = whole[20:24]
    chunks = list(made.runtime().stream("the", replace(RANDOM, stop=("never there", stop))))
    assert joined(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"


def test_what_does_not_fit_is_refused_at_once(made: TinySeq2Seq) -> None:
    with pytest.raises(ValueError, match=r"context is 192 tokens; \d+ in the prompt and 190 in the answer"):
        made.runtime().stream("the quick", Sampling(max_new_tokens=190))
    with pytest.raises(ValueError, match="the prompt is empty"):
        made.runtime().generate([[]], Sampling())
    with pytest.raises(ValueError, match="no pictures"):
        made.runtime().picture("the", Sampling())


def test_streams_in_several_threads_do_not_disturb_each_other(made: TinySeq2Seq) -> None:
    runtime = made.runtime()
    alone = [joined(list(runtime.stream(prompt, RANDOM))) for prompt in ("the", "fox", "dog")]
    found: dict[int, str] = {}

    def run(place: int, prompt: str) -> None:
        found[place] = joined(list(runtime.stream(prompt, RANDOM)))

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(("the", "fox", "dog"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[place] for place in range(3)] == alone


def test_a_bundle_opens_and_needs_both_graphs(made: TinySeq2Seq, tmp_path: Path) -> None:
    assert isinstance(open_bundle(made.bundle), Seq2Seq)
    manifest = json.loads((made.bundle / "manifest.json").read_text())
    with pytest.raises(ServingError, match=r"no encoder\.onnx and no decoder\.onnx"):
        Seq2Seq(tmp_path, manifest, "fp32")
