"""Words: the same token ids as the tokenizers library gives, for any text."""

from __future__ import annotations

import os
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from flywheel.modalities import words as module
from flywheel.modalities.words import Words, words

TEXTS = [
    "It's we'll they've  a 12345 test,\n\n\tof Größe—naïve “quotes” x²½ and _snakes_\r\n " * 3,
    "def f(x):\n    return 1",
]


def trained(**options: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


TOKENIZER = trained()


def agree(text: str) -> bool:
    ids = Words(TOKENIZER).ids(text)
    return ids is None or ids.tolist() == TOKENIZER.encode(text, add_special_tokens=False).ids


def test_every_known_character_is_split_off_as_the_library_does() -> None:
    known = [chr(code) for code in range(0x2070) if Words(TOKENIZER).ids(chr(code)) is not None]
    assert len(known) > 600
    for character, (before, after) in product(known, product(("", " ", "  ", "a", "1", "'", "!", "é"), repeat=2)):
        assert agree(f"{before}{character}{after}"), (before, character, after)


@given(st.text(st.one_of(st.sampled_from(" \n\t'sVEll1_.é²—\xa0\x85\x1c"), st.characters(exclude_categories=["Cs"]))))
def test_any_text_gets_the_ids_of_the_library(text: str) -> None:
    assert agree(text)


def test_words_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    known = Words(TOKENIZER)
    for text in (*TEXTS, "x" * 100, *TEXTS):
        ids = known.ids(text)
        assert ids is not None
        assert ids.tolist() == TOKENIZER.encode(text, add_special_tokens=False).ids
    assert len(known) <= 3


def test_other_tokenizers_and_many_cores_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert words(TOKENIZER) is not None
    lower = trained()
    lower.normalizer = normalizers.Lowercase()
    added = trained()
    added.add_tokens(["quotes"])
    assert [words(t) for t in (lower, added, trained(add_prefix_space=True), trained(use_regex=False))] == [None] * 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert words(TOKENIZER) is None
