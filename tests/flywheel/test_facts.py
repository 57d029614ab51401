from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flywheel import facts
from flywheel.record import Record


def fact(name: str, **fields: Any) -> Any:
    return facts.columns(Record("r", **fields), frozenset({name}))[name]


def png(width: int = 32, height: int = 16) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def sound(kind: str, samples: Any = None) -> bytes:
    file = io.BytesIO()
    wave = np.sin(np.arange(8000) / 20) if samples is None else samples
    subtype = "FLOAT" if kind == "WAV" else None
    soundfile.write(file, wave.astype(np.float32), 8000, format=kind, subtype=subtype)
    return file.getvalue()


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"turn {n}"} for n, role in enumerate(roles)]


def test_only_wanted_columns_in_a_fixed_order() -> None:
    row = Record("r", text="two words", label="x", origin={"source": "s", "group": "g"})
    found = facts.columns(row, frozenset({"tokens", "length", "group", "label", "nonsense"}))
    assert list(found.items()) == [("length", 9), ("label", "x"), ("group", "g"), ("tokens", 2)]
    assert facts.columns(row, frozenset()) == {}


def test_every_column_is_none_or_a_plain_value_for_every_kind_of_row() -> None:
    wanted = frozenset(set(facts.NAMES) - {"language", "language_score", "pii", "has_pii"})
    for row in (Record("a"), Record("b", text="x"), Record("c", image=png()), Record("d", audio=sound("WAV"))):
        found = facts.columns(row, wanted)
        assert set(found) == wanted
        assert all(value is None or isinstance(value, bool | int | float | str) for value in found.values())


def test_tokens_are_counted_by_the_checkpoint_or_bounded_by_words(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"one": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("e", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    row = Record("r", prompt="one one", completion="e")
    wanted = frozenset({"tokens"})
    assert facts.columns(row, wanted, facts.token_counter(str(tmp_path))) == {"tokens": 5}
    assert facts.columns(row, wanted, facts.token_counter(None)) == {"tokens": 3}
    assert fact("tokens", image=b"") is None


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Größe, naïveté ☃ 🎈\r\n\tfine", 0.0),
        ("a\ufffdb\x00", 0.5),
        ("", 0.0),
    ],
)
def test_share_of_damaged_characters(text: str, share: float) -> None:
    assert fact("encoding_errors", text=text) == share


def test_mojibake_counts_as_damage() -> None:
    text = "Schöne Grüße aus Köln, déjà vu".encode().decode("windows-1252")
    assert 0.1 < fact("encoding_errors", text=text) < 0.6


@given(st.text())
def test_the_share_is_a_share(text: str) -> None:
    assert 0 <= fact("encoding_errors", text=text) <= 1


@pytest.mark.parametrize(
    ("roles", "alternate"),
    [
        (("user", "assistant"), True),
        (("system", "user", "assistant", "user"), True),
        (("user", "assistant", "tool", "tool", "assistant"), True),
        (("user", "user"), False),
        (("assistant", "user"), False),
        (("user", "assistant", "system", "user"), False),
        (("user", "tool"), False),
        (("user", "robot"), False),
        (("system",), False),
        ((), False),
    ],
)
def test_roles(roles: tuple[str, ...], alternate: bool) -> None:
    assert fact("roles_alternate", messages=turns(*roles)) is alternate


def test_roles_of_preferences_follow_the_prompt() -> None:
    answer = turns("assistant")
    assert fact("roles_alternate", prompt="q", chosen=answer, rejected=answer) is True
    assert fact("roles_alternate", chosen=answer, rejected=answer) is False
    assert fact("roles_alternate", prompt="q", chosen="a", rejected="b") is None


def test_answers_that_only_repeat() -> None:
    assert fact("prompt_differs", prompt="Say  hi", completion="say hi\n") is False
    assert fact("prompt_differs", prompt="Say hi", completion="hi") is True
    assert fact("prompt_differs", text="plain") is None
    parrot = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hi "}]
    assert fact("prompt_differs", messages=parrot) is False
    assert fact("chosen_differs", chosen="yes", rejected="Yes") is False
    assert fact("chosen_differs", chosen=parrot, rejected=parrot[:1]) is True


def test_pictures() -> None:
    wanted = frozenset({"image_intact", "width", "height"})
    found = facts.columns(Record("r", image=png()), wanted)
    assert found == {"image_intact": True, "width": 32, "height": 16}
    assert fact("image_intact", image=png()[:-200]) is False
    assert fact("image_intact", image=b"no picture") is False


def test_a_picture_that_is_too_large_is_not_decoded() -> None:
    file = io.BytesIO()
    Image.new("1", (12_000, 10_000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    assert fact("image_intact", image=file.getvalue()) is False


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_recordings(kind: str) -> None:
    whole = sound(kind)
    found = facts.columns(Record("r", audio=whole), frozenset({"audio_intact", "seconds", "sample_rate"}))
    assert found == {"audio_intact": True, "seconds": 1.0, "sample_rate": 8000}
    assert fact("audio_intact", audio=whole[: len(whole) // 2]) is False
    assert fact("audio_intact", audio=b"no sound") is False
    assert fact("audio_intact", audio=sound(kind, np.zeros(0))) is False


def test_a_recording_with_an_impossible_sample_is_not_intact() -> None:
    assert fact("audio_intact", audio=sound("WAV", np.array([0.0, np.inf]))) is False


def test_language() -> None:
    pytest.importorskip("flywheel.process.language")
    assert fact("language", text="The quick brown fox jumps over the lazy dog near the river bank.") == "en"
    assert fact("language", text=" ") is None


def test_personal_identifiers() -> None:
    pytest.importorskip("flywheel.process.privacy")
    assert fact("pii", text="write to ann@example.com or bob@example.com") == 2
    assert fact("has_pii", text="nothing here") is False


def test_cheap_facts_import_nothing_heavy() -> None:
    program = (
        "import sys; from flywheel import facts; from flywheel.record import Record;"
        "facts.columns(Record('r', text='x'), frozenset({'length', 'digest', 'label', 'roles_alternate'}));"
        "heavy = {'numpy', 'ftfy', 'PIL', 'soundfile', 'transformers', 'tokenizers'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
