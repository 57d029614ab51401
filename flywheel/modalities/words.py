"""Byte-level BPE with GPT-2's words (Radford et al. 2019) on few cores: each distinct word is looked up once.

The same ids as the `tokenizers` library gives, on one core some three times as fast. Where there are more cores, the
library's threads are faster.
"""

from __future__ import annotations

import os
import re
import unicodedata
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

FEW = 3
"""Cores up to which this is faster."""
KEPT, LONGEST = 1 << 18, 64
"""Words whose ids are kept, and the characters of the longest of them."""

_KNOWN = "\x00-\u024f\u2010-\u2027\u2030-\u205e"
"""Latin letters and punctuation: which of these are letters, numbers and spaces, every version of Unicode agrees on."""
_UNKNOWN = re.compile(f"[^{_KNOWN}]")


class Words(dict[str, bytes]):
    """Word → its ids as bytes; a word that is not there yet is looked up."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._model = tokenizer.model

    def __missing__(self, word: str) -> bytes:
        tokens = self._model.tokenize(word.encode().decode("latin-1").translate(_VISIBLE))
        found = array("i", [token.id for token in tokens]).tobytes()
        if len(word) <= LONGEST:
            if len(self) >= KEPT:
                self.clear()
            self[word] = found
        return found

    def ids(self, text: str) -> NDArray[np.int64] | None:
        """Token ids of a text, without special tokens; None where it has characters that are not known here."""
        if not text.isascii() and _UNKNOWN.search(text):
            return None
        words = (_ASCII_WORD if text.isascii() else _WORD).findall(text)
        return np.frombuffer(b"".join(map(self.__getitem__, words)), np.int32).astype(np.int64)


def words(tokenizer: Tokenizer) -> Words | None:
    """The words of a tokenizer; None where it splits or changes texts in another way, or where there are many cores."""
    model, split = tokenizer.model, tokenizer.pre_tokenizer
    fits = (
        len(os.sched_getaffinity(0)) <= FEW
        and tokenizer.normalizer is None
        and isinstance(split, pre_tokenizers.ByteLevel)
        and split.use_regex
        and not split.add_prefix_space
        and isinstance(model, models.BPE)
        and not model.dropout
        and tokenizer.encode_special_tokens
        and all(token.special for token in tokenizer.get_added_tokens_decoder().values())
    )
    return Words(tokenizer) if fits else None


def _pattern(letters: str, numbers: str, spaces: str) -> re.Pattern[str]:
    """GPT-2's pattern, the most frequent alternative first: no word fits two of them."""
    return re.compile(
        f" ?[{letters}]+|'(?:[stmd]|re|ve|ll)| ?[{numbers}]+| ?[^{spaces}{letters}{numbers}]+"
        f"|[{spaces}]+(?![^{spaces}])|[{spaces}]+"
    )


def _of(category: str) -> str:
    """The known characters of a general category."""
    known = (chr(code) for code in range(0x2060) if not _UNKNOWN.match(chr(code)))
    return "".join(character for character in known if unicodedata.category(character)[0] == category)


def _visible() -> Iterable[tuple[int, int]]:
    """The character that stands for each byte in the vocabulary: itself where it is one that is seen."""
    others = 0x100
    for byte in range(0x100):
        seen = 0x21 <= byte <= 0x7E or (0xA1 <= byte <= 0xFF and byte != 0xAD)
        yield byte, byte if seen else others
        others += not seen


_ASCII_WORD = _pattern("A-Za-z", "0-9", "\t-\r ")
_WORD = _pattern(_of("L"), _of("N"), "\t-\r \x85\xa0")
_VISIBLE = dict(_visible())
