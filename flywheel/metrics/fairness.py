"""Whether a model serves some worse than others: its likelihood by slices of the held-out rows, and when an identity in
a sentence is exchanged for another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import log
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from flywheel.errors import RecipeError
from flywheel.metrics.asking import asked, chosen, is_document, require, speaker_of
from flywheel.metrics.base import Exam, Speaker
from flywheel.metrics.examples import reference
from flywheel.metrics.identities import SUBJECTS, TEMPLATES, WORDS, Groups
from flywheel.metrics.metric import Metric, bootstrap_mean, bootstrap_ratio, from_scores
from flywheel.metrics.scores import Scores
from flywheel.record import Record

Floats = NDArray[np.float64]
By = Literal["source", "label", "length", "language"]
PIECE, PIECES = 256, 8
"""Characters of a document that are scored at once, after as many before them, and how many such pieces of each."""
SHUFFLES = 200
"""Random slices that a gap is held against."""


# ---------------------------------------------------------------- slices


def slices(exam: Exam, *, by: By = "source", min_rows: Annotated[int, Field(ge=2)] = 20) -> list[Metric]:
    """`slice_gap_<by>`: bits per byte of the worst slice of the held-out rows less those of the best.

    Slices by `length` are quarters of the rows, by `language` what fastText finds. Scored are answers after what was
    asked, and the first 2,048 characters of documents. A gap of zero is not to be expected: the baseline is the gap of
    slices of the same sizes filled at random, and slices may differ by nature (a source of tables, one of prose).
    Slices of fewer than `min_rows` rows are named in the detail and not counted.
    """
    rows = chosen((r for r in exam.heldout if is_document(r) or reference(r)), exam.num_samples, exam.seed)
    require(rows, "slices", "held-out rows with texts or answers")
    names = slice_names(rows, by)
    sizes = Counter(names)
    counted = sorted(name for name, size in sizes.items() if size >= min_rows)
    if len(counted) < 2:
        raise RecipeError(
            f"evaluate.metrics: slices by {by}",
            found=", ".join(f"{name}: {size} rows" for name, size in sizes.most_common(5)),
            expected=f"two slices of {min_rows} held-out rows or more",
            remedy="raise evaluate.num_samples, lower min_rows, or slice by something else",
        )
    kept = [i for i, name in enumerate(names) if name in counted]
    bits, sizes_ = _bits([rows[i] for i in kept], speaker_of(exam))
    owner = np.array([counted.index(names[i]) for i in kept])
    found = {name: _slice(bits[owner == k], sizes_[owner == k], exam.seed) for k, name in enumerate(counted)}
    values = {name: one["value"] for name, one in found.items()}
    detail = {
        "slices": found,
        "worst": max(values, key=values.__getitem__),
        "best": min(values, key=values.__getitem__),
        "too_small": {name: size for name, size in sorted(sizes.items()) if size < min_rows},
    }
    scores = Scores(by_slice(bits, sizes_, owner), "gap")
    gap = from_scores(f"slice_gap_{by}", "lower", scores, exam.seed, unit="bits/byte", detail=detail)
    return [replace(gap, baseline=gap_by_chance(bits, sizes_, owner, exam.seed))]


def slice_names(rows: Sequence[Record], by: By) -> list[str]:
    """The slice that each row belongs to."""
    if by == "length":
        lengths = np.array([len(_said(row)) for row in rows])
        edges = np.quantile(lengths, [0.25, 0.5, 0.75]).round().astype(int).tolist()
        ends = [f"to {edge}" for edge in edges] + [f"over {edges[-1]}"]
        return [ends[int(k)] for k in np.searchsorted(edges, lengths)]
    if by == "language":
        from flywheel.process.language import detect

        return [detect(_said(row))[0] for row in rows]
    values = [row.label if by == "label" else row.origin.get("source") for row in rows]
    return [str(value) if value not in (None, "") else "none" for value in values]


def by_slice(bits: Floats, sizes: Floats, owner: NDArray[np.int64]) -> Floats:
    """(rows, 2 x slices): the bits of each row in the column of its slice, its bytes as many columns further on."""
    slices_ = int(owner.max()) + 1
    parts = np.zeros((len(bits), 2 * slices_))
    parts[np.arange(len(bits)), owner] = bits
    parts[np.arange(len(bits)), owner + slices_] = sizes
    return parts


def gaps(parts: Floats, weights: Floats, fixed: Floats | None = None) -> Floats:
    """The gap between worst and best slice for each weighting of the rows, (draws,); empty slices are left out."""
    sums = weights @ parts
    bits, sizes = np.split(sums, 2, axis=1)
    means = np.divide(bits, sizes, out=np.full_like(bits, np.nan), where=sizes > 0)
    found: Floats = np.nanmax(means, axis=1) - np.nanmin(means, axis=1)
    return found


def gap_by_chance(bits: Floats, sizes: Floats, owner: NDArray[np.int64], seed: int) -> float:
    """The mean gap where the rows are dealt to slices of the same sizes at random."""
    rng = np.random.default_rng((seed, 2))
    once = np.ones((1, len(bits)))
    return float(np.mean([gaps(by_slice(bits, sizes, rng.permutation(owner)), once)[0] for _ in range(SHUFFLES)]))


def _slice(bits: Floats, sizes: Floats, seed: int) -> dict[str, Any]:
    metric = bootstrap_ratio("bits_per_byte", "lower", bits, sizes, seed)
    return {"value": metric.value, "low": metric.low, "high": metric.high, "rows": len(bits)}


def _said(row: Record) -> str:
    """What of a row is scored."""
    return (row.text or "")[: PIECE * PIECES] if is_document(row) else reference(row)


def _bits(rows: Sequence[Record], speaker: Speaker) -> tuple[Floats, Floats]:
    """Bits and UTF-8 bytes of each row, both (rows,)."""
    owner, before, after = list[int](), list[str](), list[str]()
    for i, row in enumerate(rows):
        text = _said(row)
        for start in range(0, len(text), PIECE) if is_document(row) else (0,):
            owner.append(i)
            before.append(text[max(0, start - PIECE) : start] if is_document(row) else asked(row))
            after.append(text[start : start + PIECE] if is_document(row) else text)
    nats = np.array([one.nats for one in speaker.log_likelihood(before, after)], dtype=np.float64)
    bits = np.zeros(len(rows))
    np.add.at(bits, owner, -nats / log(2))
    return bits, np.array([len(_said(row).encode(errors="replace")) for row in rows], dtype=np.float64)


# ---------------------------------------------------------------- counterfactuals


def _equal_groups(groups: dict[str, list[list[str]]]) -> dict[str, list[list[str]]]:
    for name, terms in groups.items():
        if len(terms) < 2 or len({len(group) for group in terms}) != 1 or not terms[0]:
            raise ValueError(f"two groups or more of equally many terms under {name}")
    return groups


def _one_place(templates: dict[str, list[str]]) -> dict[str, list[str]]:
    for prompt, completions in templates.items():
        if prompt.count("{}") != 1 or not all(completions):
            raise ValueError(f"one {{}} in {prompt!r}, and completions for it")
    return templates


class Swap(NamedTuple):
    """One completion after prompts that differ in whom they mean."""

    axis: str
    prompts: tuple[tuple[str, ...], ...]
    """By group, one for each term; the n-th of one group corresponds to the n-th of another."""
    completion: str


class Terms(NamedTuple):
    """The terms of an axis in a text."""

    groups: Groups
    places: Mapping[str, tuple[int, int]]
    """Term → its group and its number there. A term in small letters is also known with a capital."""
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, groups: Groups) -> Terms:
        places = {
            spelled: (g, n)
            for g, group in enumerate(groups)
            for n, term in enumerate(group)
            for spelled in (term, term[:1].upper() + term[1:])
        }
        return cls(groups, places, re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, places))})(?!\w)"))

    def meaning(self, text: str, group: int) -> str:
        """The text with the terms of one group; the capitals stay."""

        def exchanged(match: re.Match[str]) -> str:
            own, number = self.places[match[0]]
            term = self.groups[group][number]
            return match[0] if own == group else term[:1].upper() + term[1:] if match[0][:1].isupper() else term

        return self.pattern.sub(exchanged, text)


def counterfactual(
    exam: Exam,
    *,
    groups: Annotated[dict[str, list[list[str]]], AfterValidator(_equal_groups)] | None = None,
    templates: Annotated[dict[str, list[str]], AfterValidator(_one_place)] | None = None,
    source: Literal["templates", "heldout"] = "templates",
) -> list[Metric]:
    """`counterfactual_gap`: by how much the log-likelihood of the same completion changes when a term for one group of
    people before it is exchanged for a term for another; mean absolute difference in nats per token.

    `groups` name axes (gender, religion ...) and for each of them groups of terms, the n-th of which correspond.
    `templates` map prompts with `{}` in the place of the term to completions. With `heldout` the terms are looked for
    in the held-out rows: all of a prompt are exchanged, and scored is what follows up to the next one. The baseline,
    with templates, is the same difference between terms of one group: what any other word in that place does.

    Built in are short English lists (flywheel.metrics.identities). No gap here does not mean none elsewhere, and a gap
    is not always wrong: a completion may well fit one group better.
    """
    if source == "heldout":
        swaps = list(row_swaps(exam, groups or WORDS))
    else:
        swaps = list(template_swaps(groups or SUBJECTS, templates or TEMPLATES))
    require(swaps, "counterfactual", "held-out rows with one of the terms")
    found = likelihoods(swaps, speaker_of(exam))
    differences = np.array([between(one) for one in found])
    metric = bootstrap_mean("counterfactual_gap", "lower", differences, exam.seed)
    inside = [d for one in found if (d := within(one)) is not None]
    largest = sorted(zip(differences.tolist(), swaps, strict=True), key=lambda pair: -pair[0])[:5]
    axes = {axis: [d for d, s in zip(differences, swaps, strict=True) if s.axis == axis] for axis in _axes(swaps)}
    detail = {
        "axes": {axis: {"gap": float(np.mean(d)), "examples": len(d)} for axis, d in axes.items()},
        "largest": [
            {"gap": gap, "axis": s.axis, "prompts": [g[0][-120:] for g in s.prompts], "completion": s.completion}
            for gap, s in largest
        ],
    }
    return [replace(metric, unit="nats/token", baseline=float(np.mean(inside)) if inside else None, detail=detail)]


def template_swaps(groups: Mapping[str, Groups], templates: Mapping[str, Sequence[str]]) -> Iterator[Swap]:
    """Each completion of each template with the terms of each axis."""
    for axis, terms in groups.items():
        for prompt, completions in templates.items():
            prompts = tuple(tuple(prompt.replace("{}", term) for term in group) for group in terms)
            yield from (Swap(axis, prompts, completion) for completion in completions)


def row_swaps(exam: Exam, groups: Mapping[str, Groups]) -> Iterator[Swap]:
    """What stands in held-out rows after a term, and the text before it with each other group's terms."""
    finders = {axis: Terms.of(terms) for axis, terms in groups.items()}
    for row in chosen(exam.heldout, exam.num_samples, exam.seed):
        for axis, terms in finders.items():
            cut = _cut(row, terms.pattern)
            if cut is not None:
                versions = dict.fromkeys(terms.meaning(cut[0], group) for group in range(len(groups[axis])))
                if len(versions) > 1:
                    yield Swap(axis, tuple((version,) for version in versions), cut[1])


def likelihoods(swaps: Sequence[Swap], speaker: Speaker) -> list[Floats]:
    """Nats per token of the completion of each swap, (groups, terms)."""
    prompts = [(prompt, swap.completion) for swap in swaps for group in swap.prompts for prompt in group]
    scored = speaker.log_likelihood([p for p, _ in prompts], [c for _, c in prompts])
    means = iter([one.nats / max(1, one.tokens) for one in scored])
    return [np.array([[next(means) for _ in group] for group in swap.prompts]) for swap in swaps]


def between(nats: Floats) -> float:
    """Mean absolute difference of corresponding terms over all pairs of groups; `nats` is (groups, terms)."""
    return float(np.mean([np.abs(nats[a] - nats[b]).mean() for a, b in combinations(range(len(nats)), 2)]))


def within(nats: Floats) -> float | None:
    """Mean absolute difference of two terms of one group; none where groups have one term."""
    pairs = list(combinations(range(nats.shape[1]), 2))
    return float(np.mean([np.abs(nats[:, a] - nats[:, b]).mean() for a, b in pairs])) if pairs else None


def _cut(row: Record, pattern: re.Pattern[str]) -> tuple[str, str] | None:
    """A prompt with a term in it and, up to the next term, what follows: of a pair its answer."""
    if not is_document(row):
        prompt, answer = asked(row), reference(row)
        return (prompt, answer) if answer and pattern.search(prompt) and not pattern.search(answer) else None
    text = (row.text or "")[: PIECE * PIECES]
    for match in pattern.finditer(text):
        following = pattern.search(text, match.end())
        after = text[match.end() : min(match.end() + 100, following.start() if following else len(text))]
        if len(after) >= 20:
            return text[max(0, match.end() - PIECE) : match.end()], after.rstrip()
    return None


def _axes(swaps: Sequence[Swap]) -> list[str]:
    return list(dict.fromkeys(swap.axis for swap in swaps))
