"""Labels without reading every row: by rules that vote (weak supervision), and by joining what annotators said.

Rules vote as the labelling functions of data programming do (Ratner et al. 2016), with equal weights.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flywheel import labelling
from flywheel.record import Outcomes, Record, drop, quarantine, texts


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Keywords = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Rule = Annotated[str, Field(min_length=1), AfterValidator(_compiles)] | Keywords
Rules = Annotated[dict[str, Rule], Field(min_length=1)]


def weak_labels(rows: Iterable[Record], rules: Rules, abstain: Literal["keep", "drop"] = "keep") -> Outcomes:
    """Label rows by `rules`, label to keywords or a regular expression: `{spam: [win, prize], ham: "(?i)dear"}`.

    A regular expression that is found has one vote, and so has each keyword that stands in the text as whole words, in
    any case. Most votes win, but do not replace a label that a row has. `origin.weak_labels` keeps the `votes`, the
    winning `label` and whether there was a `conflict` (votes for several labels). A tie is quarantined as
    `conflicting_rules`. Rows without votes are kept as they are, or dropped as `no_rule`.
    """
    voters = {label: _voter(rule) for label, rule in rules.items()}
    for row in rows:
        text = "\n".join(texts(row))
        votes = {label: count for label, voter in voters.items() if (count := voter(text))}
        if not votes:
            yield row if abstain == "keep" else drop(row, "no_rule")
            continue
        winner = labelling.majority(Counter(votes).elements())
        if winner is None:
            said = ", ".join(f"{label}: {count}" for label, count in votes.items())
            yield quarantine(row, "conflicting_rules", said)
            continue
        found = {"votes": votes, "label": winner, "conflict": len(votes) > 1}
        yield row.with_fields(label=row.label or winner, origin={**row.origin, "weak_labels": found})


def import_labels(
    rows: Iterable[Record], path: Annotated[str, Field(min_length=1)], unlabelled: Literal["keep", "drop"] = "keep"
) -> Outcomes:
    """Label rows with what annotators said in the file (or directory of files) `path`, joined by id or content.

    The label of most annotators replaces the row's; `origin.labels` counts the `votes`. A tie is quarantined as
    `disagreement`. Rows that nobody labelled are kept as they are, or dropped as `unlabelled`.
    """
    by_id: defaultdict[str, list[str]] = defaultdict(list)
    by_digest: defaultdict[str, list[str]] = defaultdict(list)
    for given in labelling.read_labels(Path(path).expanduser()):
        for index, key in ((by_id, given.id), (by_digest, given.digest)):
            if key:
                index[key].append(given.label)
    for row in rows:
        said = by_id.get(row.id) or by_digest.get(labelling.digest(row), [])
        winner = labelling.majority(said)
        votes = dict(sorted(Counter(said).items()))
        if winner is not None:
            yield row.with_fields(label=winner, origin={**row.origin, "labels": votes})
        elif said:
            yield quarantine(row, "disagreement", ", ".join(f"{label}: {n}" for label, n in votes.items()))
        else:
            yield row if unlabelled == "keep" else drop(row, "unlabelled")


def _voter(rule: str | list[str]) -> Callable[[str], int]:
    """How many votes a text gives."""
    if isinstance(rule, str):
        pattern = re.compile(rule)
        return lambda text: int(pattern.search(text) is not None)
    keywords = sorted({keyword.casefold() for keyword in rule})
    patterns = [re.compile(rf"(?<!\w){re.escape(keyword)}(?!\w)") for keyword in keywords]
    return lambda text: sum(pattern.search(folded) is not None for folded in [text.casefold()] for pattern in patterns)
