from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.errors import RecipeError
from flywheel.process.toxicity import MILD, toxicity_filter
from flywheel.record import Dropped, Record


def kept(texts: list[str], **arguments: object) -> list[bool]:
    rows = [Record(id=str(number), text=text) for number, text in enumerate(texts)]
    return [isinstance(out, Record) for out in toxicity_filter(rows, **arguments)]  # type: ignore[arg-type]


def test_mild_list_needs_no_arguments() -> None:
    assert kept(["You idiot, shut up.", "A lovely day."]) == [False, True]
    assert all(word == word.casefold() for word in MILD)


def test_share_of_words_decides() -> None:
    text = "idiot " + "word " * 99
    assert kept([text], threshold=0.01) == [False]
    assert kept([text], threshold=0.011) == [True]


def test_dropped_says_how_many_and_not_which() -> None:
    [out] = toxicity_filter([Record(id="a", text="grue grue", origin={"source": "s", "path": "f"})], words=["grue"])
    assert out == Dropped("a", "toxic", "f", "s", "2 of the lexicon's words")


def test_lexicon_of_a_file_with_phrases_case_and_comments(tmp_path: Path) -> None:
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("# ours\nGrue\n\nSTRASSE # a word\nvery bad\n", encoding="utf-8-sig")
    texts = ["a GRUE!", "Straße", "so VERY bad", "very, very good", "idiot"]
    assert kept(texts, file=str(lexicon)) == [False, False, False, True, True]


def test_parts_of_words_do_not_count() -> None:
    assert kept(["Scunthorpe and grueling"], words=["grue", "thorpe"]) == [True]


def test_all_texts_of_a_row_count() -> None:
    row = Record(id="a", prompt="fine", messages=[{"role": "user", "content": "grue"}])
    [out] = toxicity_filter([row], words=["grue"], threshold=0.5)
    assert isinstance(out, Dropped)


def test_rows_without_words_pass() -> None:
    rows = [Record(id="a", text=""), Record(id="b", image=b"x")]
    assert list(toxicity_filter(rows)) == rows


def test_bad_lexicons(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for name in ("empty.txt", "latin.txt", "absent.txt"):
        with pytest.raises(RecipeError, match="toxicity_filter"):
            list(toxicity_filter([], file=str(tmp_path / name)))
