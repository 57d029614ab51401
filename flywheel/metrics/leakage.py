"""What a model gives away of its training rows: personal data, planted secrets, whole passages.

Each metric asks in its own way and sees no more than that: what it does not find may come out under another prompt.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import log2
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flywheel.errors import RecipeError
from flywheel.metrics.asking import (
    OPENING,
    asked,
    can_be_asked,
    chosen,
    drawn,
    is_document,
    require,
    speaker_of,
)
from flywheel.metrics.base import Exam, Speaker
from flywheel.metrics.examples import reference
from flywheel.metrics.metric import Metric, bootstrap_mean
from flywheel.metrics.scores import RESAMPLES, draws
from flywheel.process.canaries import HOLE, MARK, secrets
from flywheel.process.privacy import KINDS, Kind, find_pii
from flywheel.process.spans import Match
from flywheel.record import Record, texts
from flywheel.runtimes.base import Sampling

Floats = NDArray[np.float64]
LOOK_AT = 20
"""Training rows that are looked at for one with personal data in it."""


# ---------------------------------------------------------------- personal data


class Said(NamedTuple):
    """What the model was given and what it said."""

    prompt: str
    completion: str


def pii_leakage(exam: Exam, *, kinds: Annotated[list[Kind], Field(min_length=1)] | None = None) -> list[Metric]:
    """`leaked_pii_share`: completions that hold personal data of the training rows, in [0, 1].

    Up to half of the prompts are what stands before personal data in training rows (reconstruction, Lukas et al. 2023,
    "Analyzing Leakage of Personally Identifiable Information in Language Models"), the others open held-out rows. What
    stands in the prompt is not leaked. Found is what `mask_pii` finds: no names and no addresses in prose.
    """
    speaker, wanted = speaker_of(exam), tuple(kinds or KINDS)
    aimed = _before_pii(exam, wanted, (exam.num_samples + 1) // 2)
    openings = chosen(filter(can_be_asked, exam.heldout), max(0, exam.num_samples - len(aimed)), exam.seed)
    answers = [row for row in aimed if not isinstance(row, str)]
    prompts = [row for row in aimed if isinstance(row, str)]
    said = [Said(p, c) for p, c in zip(prompts, speaker.complete(prompts, exam.sampling), strict=True)]
    for rows in (answers, openings):
        said += [Said(asked(r), c) for r, c in zip(rows, drawn(speaker, rows, exam.sampling), strict=True)]
    require(said, "pii_leakage", "rows that a language model can be asked about")
    found = [new_pii(one, wanted) for one in said]
    known = standing({value for values in found for _, value in values}, exam.train)
    leaked = [[kind for kind, value in values if value in known] for values in found]
    detail = {
        "before_personal_data": len(aimed),
        "openings": len(openings),
        "kinds": dict(sorted(Counter(kind for row in leaked for kind in row).items())),
        "made_up": sum(len(values) for values in found) - sum(map(len, leaked)),
    }
    metric = bootstrap_mean("leaked_pii_share", "lower", np.array([bool(row) for row in leaked], float), exam.seed)
    return [replace(metric, unit="share", detail=detail)]


def new_pii(said: Said, kinds: Sequence[Kind]) -> list[tuple[str, str]]:
    """Kind and value of the personal data that a completion adds to its prompt."""
    whole = said.prompt + said.completion
    fresh = [m for m in find_pii(whole, kinds) if m.end > len(said.prompt)]
    return [(m.kind, value) for m in fresh if (value := whole[m.start : m.end]) not in said.prompt]


def standing(values: set[str], rows: Sequence[Record]) -> set[str]:
    """Those of the values that stand in a row as whole words, whatever their case."""
    wanted = {value: re.compile(rf"(?<!\w){re.escape(value.casefold())}(?!\w)") for value in values}
    found: set[str] = set()
    for row in rows if wanted else ():
        for text in map(str.casefold, texts(row)):
            found |= {v for v in wanted.keys() - found if v.casefold() in text and wanted[v].search(text)}
    return found


def _before_pii(exam: Exam, kinds: Sequence[Kind], count: int) -> list[str | Record]:
    """What stands before personal data in training rows, or the rows whose answers hold some."""
    found: list[str | Record] = []
    for row in chosen(filter(can_be_asked, exam.train), LOOK_AT * count, exam.seed):
        if len(found) == count:
            break
        text = (row.text or "") if is_document(row) else reference(row)
        match: Match | None = next(iter(find_pii(text, kinds)), None)
        if match is not None:
            # Without the space, which most tokenizers count to the word after it.
            found.append(text[max(0, match.start - OPENING) : match.start].rstrip(" ") if is_document(row) else row)
    return found


# ---------------------------------------------------------------- canaries


class Canary(NamedTuple):
    """A secret among the training rows."""

    text: str
    format: str
    """The same text with `#` for every digit that was random."""


def canary_exposure(
    exam: Exam,
    *,
    canaries: Annotated[list[str], Field(min_length=1)] | None = None,
    candidates: Annotated[int, Field(ge=100, le=10_000)] = 1000,
) -> list[Metric]:
    """`canary_exposure`: how much likelier than others of its format the best remembered canary is, in bits; and
    `canary_exposure_mean` over all of them.

    Exposure (Carlini et al. 2019, "The Secret Sharer") is log2 of the number of possible secrets less log2 of the rank
    of the planted one by log-perplexity. The rank is estimated from `candidates` random secrets; where the canary comes
    before all of them, from a skew-normal distribution fitted to them, as in the paper. A model that never saw a canary
    gives it 1.44 bits on average, and the largest of n about log2(n) + 0.8.

    Canaries are those that `plant_canaries` added, or the given texts, of which every digit counts as random.
    """
    found = _planted(exam.train) if canaries is None else [Canary(c, re.sub("[0-9]", HOLE, c)) for c in canaries]
    if not found or any(c.format.count(HOLE) < 3 for c in found):
        raise RecipeError(
            "evaluate.metrics: canary_exposure",
            found="no canary with three random digits or more",
            expected="some among the training rows",
            remedy="add `plant_canaries` to data.augment, or list `canaries`",
        )
    measured = [
        one
        for format in dict.fromkeys(canary.format for canary in found)
        for one in _exposures(speaker_of(exam), [c for c in found if c.format == format], candidates, exam.seed)
    ]
    bits = np.array([one.bits for one in measured])
    taken = draws(len(bits), RESAMPLES, exam.seed) > 0
    low, high = np.percentile(np.where(taken, bits, -np.inf).max(axis=1), [2.5, 97.5]).tolist()
    copies = Counter(row.text for row in exam.train if row.text is not None)
    measured.sort(key=lambda one: -one.bits)
    largest = [
        {"format": c.format, "copies": copies[c.text], "exposure": round(bits, 3), "rank": rank}
        for c, bits, rank in measured[:20]
    ]
    detail: dict[str, Any] = {"candidates": candidates, "canaries": len(bits), "largest": largest}
    mean = bootstrap_mean("canary_exposure_mean", "lower", bits, exam.seed)
    return [
        Metric("canary_exposure", float(bits.max()), low, high, "lower", unit="bits", detail=detail),
        replace(mean, unit="bits", detail=detail),
    ]


class Exposed(NamedTuple):
    """A canary and its exposure."""

    canary: Canary
    bits: float
    rank: float
    """Among the candidates; ties count half."""


def exposure(secret: float, others: Floats, space: int) -> tuple[float, float]:
    """Exposure in bits and rank of a secret with this log-perplexity among others of its format, (candidates,).

    `space` is the number of secrets there are; with all of them among the others, the rank is exact.
    """
    from scipy.stats import skewnorm

    rank = float(1 + (others < secret).sum() + 0.5 * (others == secret).sum())
    bits = log2((len(others) + 1) / rank)
    if rank == 1 and len(others) + 1 < space and others.std() > 0:
        share = float(skewnorm.cdf(secret, *skewnorm.fit(others, method="mm")))
        bits = max(bits, min(log2(space), -log2(share) if share > 0 else log2(space)))
    return bits, rank


def _exposures(speaker: Speaker, found: Sequence[Canary], candidates: int, seed: int) -> list[Exposed]:
    """The exposure of canaries of one format."""
    format, planted = found[0].format, [canary.text for canary in found]
    others = [text for text in secrets(format, candidates, seed + 1) if text not in planted]
    scored = speaker.log_likelihood([""] * (len(planted) + len(others)), [*planted, *others])
    nats = np.array([-one.nats for one in scored], dtype=np.float64)
    among, space = nats[len(planted) :], 10 ** format.count(HOLE)
    return [Exposed(canary, *exposure(float(n), among, space)) for canary, n in zip(found, nats, strict=False)]


def _planted(rows: Sequence[Record]) -> list[Canary]:
    marked = (Canary(row.text, str(row.origin[MARK])) for row in rows if MARK in row.origin and row.text is not None)
    return list(dict.fromkeys(marked))


# ---------------------------------------------------------------- passages


class Passage(NamedTuple):
    """A part of a row, and what stands before it or is asked; `before` is the row itself where a row is asked."""

    before: str | Record
    after: str


def memorised_text(
    exam: Exam, *, prefix: Annotated[int, Field(ge=1)] = 200, suffix: Annotated[int, Field(ge=10)] = 200
) -> list[Metric]:
    """`memorised_share`: training rows of which `suffix` characters come back word for word from the `prefix` before
    them, decoded greedily, in [0, 1] (extractable memorisation: Carlini et al. 2022, "Quantifying Memorization Across
    Neural Language Models", where both are 50 tokens).

    Of pairs and conversations the first `suffix` characters of the answer are to come back from what was asked. Rows
    that are too short are not asked. The baseline is the same share of held-out rows: what any reader of the subject
    could have gone on with. A suffix beyond half of the model's context never comes back.
    """
    train = _passages(exam, exam.train, prefix, suffix)
    require(train, "memorised_text", f"training rows of at least {prefix + suffix} characters, or shorter lengths")
    heldout = _passages(exam, exam.heldout, prefix, suffix)
    speaker = speaker_of(exam)
    back = came_back(speaker, train, exam.sampling)
    metric = bootstrap_mean("memorised_share", "lower", np.array(back, dtype=np.float64), exam.seed)
    known = float(np.mean(came_back(speaker, heldout, exam.sampling))) if heldout else None
    detail = {"prefix": prefix, "suffix": suffix, "rows": len(train), "heldout_rows": len(heldout)}
    return [replace(metric, unit="share", baseline=known, detail=detail)]


def came_back(speaker: Speaker, passages: Sequence[Passage], sampling: Sampling) -> list[bool]:
    """Whether greedy decoding after what stands before each passage starts with the passage; outer space aside."""
    befores = [p.before if isinstance(p.before, str) else asked(p.before) for p in passages]
    tokens = max(n.tokens for n in speaker.log_likelihood(befores, [p.after for p in passages]))
    greedy = replace(sampling, temperature=0.0, max_new_tokens=tokens + 2)
    said = iter(speaker.complete([p.before for p in passages if isinstance(p.before, str)], greedy))
    answers = iter(speaker.answer([p.before for p in passages if not isinstance(p.before, str)], greedy))
    back = [(next(said) if isinstance(p.before, str) else next(answers)).strip() for p in passages]
    return [text.startswith(p.after.strip() or "\0") for text, p in zip(back, passages, strict=True)]


def _passages(exam: Exam, rows: Sequence[Record], prefix: int, suffix: int) -> list[Passage]:
    """A passage of each of some rows that are long enough."""

    def fits(row: Record) -> bool:
        if is_document(row):
            return len(row.text or "") >= prefix + suffix
        return can_be_asked(row) and len(reference(row)) >= suffix

    found = []
    for row in chosen(filter(fits, rows), exam.num_samples, exam.seed):
        if is_document(row):
            text = row.text or ""
            start = _place(text, prefix, len(text) - suffix, f"{exam.seed}\0{row.id}")
            found.append(Passage(text[start - prefix : start], text[start : start + suffix]))
        else:
            found.append(Passage(row, reference(row)[:suffix]))
    return found


def _place(text: str, first: int, last: int, seed: str) -> int:
    """A place from `first` to `last`, the end of a word where there is one: tokenizers cut there."""
    start = first + int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % (last - first + 1)
    space = re.compile(r"\s").search(text, start, last + 1) or re.compile(r"\s").search(text, first, last + 1)
    return space.start() if space else start
