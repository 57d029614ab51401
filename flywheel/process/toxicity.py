"""Toxic language by a lexicon: the words that a user lists, or a small mild English list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from flywheel.errors import RecipeError
from flywheel.record import Outcomes, Record, drop, texts

MILD = frozenset(
    re.findall(
        r"\w+",
        "arse arsehole ass asshole bastard bitch bitches bollocks bugger bullshit crap crappy damn damned "
        "dickhead dipshit douchebag dumbass goddamn idiot idiots imbecile jackass jerk moron morons "
        "motherfucker fuck fucked fucker fucking piss pissed prick scum scumbag shit shitty shithead stupid "
        "twat wanker",
    )
)
"""Insults and swear words. Slurs against groups are left to a lexicon of the user's: such lists need care."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
MAX_LEXICON = 8 << 20


def toxicity_filter(
    rows: Iterable[Record],
    words: Sequence[str] | None = None,
    file: str | None = None,
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.02,
) -> Outcomes:
    """Drop texts in which at least the share `threshold` of the words is in the lexicon: `toxic`.

    The lexicon is `words` and the lines of `file` (UTF-8; empty lines and lines from `#` on are left out), or the mild
    list where neither is given. Case does not matter; an entry of several words counts each of them. A word counts
    wherever it stands, whatever is meant by it: a quotation or a medical text is dropped as an insult is.
    """
    lexicon, phrases = _lexicon(words, file)
    for row in rows:
        share, number = toxic_share(texts(row), lexicon, phrases)
        yield drop(row, "toxic", f"{number} of the lexicon's words") if number and share >= threshold else row


def toxic_share(
    parts: Iterable[str], lexicon: frozenset[str], phrases: frozenset[tuple[str, ...]] = frozenset()
) -> tuple[float, int]:
    """Share and number of the words that are in the lexicon or part of one of its phrases."""
    total = hits = 0
    lengths = sorted({len(phrase) for phrase in phrases}, reverse=True)
    for part in parts:
        found = _WORD.findall(part.casefold())
        total += len(found)
        toxic = {place for place, word in enumerate(found) if word in lexicon}
        for length in lengths:
            for place in range(len(found) - length + 1):
                if tuple(found[place : place + length]) in phrases:
                    toxic.update(range(place, place + length))
        hits += len(toxic)
    return (hits / total if total else 0.0), hits


def _lexicon(words: Sequence[str] | None, file: str | None) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    """Single words, and phrases as tuples of words."""
    if words is None and file is None:
        return MILD, frozenset()
    entries = list(words or ())
    if file is not None:
        entries += [line.split("#", 1)[0] for line in _read(file).splitlines()]
    found = {tuple(_WORD.findall(entry.casefold())) for entry in entries} - {()}
    if not found:
        raise RecipeError(
            "toxicity_filter: lexicon", found="no words", expected="one or more", remedy="list words, or leave both out"
        )
    return frozenset(entry[0] for entry in found if len(entry) == 1), frozenset(
        entry for entry in found if len(entry) > 1
    )


def _read(file: str) -> str:
    path = Path(file)
    try:
        if path.stat().st_size > MAX_LEXICON:
            raise RecipeError(
                f"toxicity_filter: {file}",
                found=f"more than {MAX_LEXICON >> 20} MiB",
                expected="a list of words",
                remedy="shorten it",
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"toxicity_filter: {file}",
            found=str(error),
            expected="a UTF-8 file, one word or phrase on each line",
            remedy="correct `file`",
        ) from error
