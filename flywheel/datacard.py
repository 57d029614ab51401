"""The dataset card: sources, licences, counts, drops by reason, slices and identifiers, all from facts of the run.

After Pushkarna, Zaldivar & Kjartansson (2022), Data Cards; the frame is that of cards on the Hugging Face hub.
"""

from __future__ import annotations

import re
import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from flywheel.counts import Counts
from flywheel.record import Record, texts

SAMPLE = 2_000
"""Rows whose language is looked at: every one until then, evenly spread by their ids."""
SHOWN, LONGEST = 12, 80
"""Lines of a table of slices, and characters of a label."""
MASKED = {"pii": "mask_pii", "secrets": "mask_secrets"}
"""Key of a row's origin that counts what was masked → the operation that does it."""
GENDERED = {
    "feminine": re.compile(r"\b(?:she|her|hers|herself|woman|women|girl|girls|mother|daughter|sister|wife)\b", re.I),
    "masculine": re.compile(r"\b(?:he|him|his|himself|man|men|boy|boys|father|son|brother|husband)\b", re.I),
}
"""English words whose counts show a slant; no judgement of any single row."""


@dataclass
class Slices:
    """What a pass over the training rows found, augmented copies included."""

    rows: int = 0
    sources: dict[str, array[int]] = field(default_factory=lambda: defaultdict(lambda: array("Q")))
    """Source → size of each row: characters, or bytes where it is a picture or a recording."""
    media: set[str] = field(default_factory=set)
    """Sources of pictures and recordings."""
    groups: array[int] = field(default_factory=lambda: array("q"))
    """A hash of the group of each row."""
    labels: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    gendered: Counter[str] = field(default_factory=Counter)
    masked: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """`pii` and `secrets`: kind → how many of it were masked in these rows."""


def slices(rows: Iterable[Record], total: int, code: Container[str] = ()) -> Slices:
    """Look at rows one by one. `total` is about how many there are, `code` names the sources that are no prose."""
    found, every = Slices(), max(1, total // SAMPLE)
    for row in rows:
        source = str(row.origin.get("source", ""))
        said = "\n".join(texts(row))
        medium = row.image or row.audio
        found.rows += 1
        found.sources[source].append(len(medium or said))
        found.groups.append(hash(str(row.origin.get("group", row.id))))
        if medium:
            found.media.add(source)
        if row.label is not None:
            found.labels[row.label] += 1
        for key in MASKED:
            found.masked[key].update(row.origin.get(key, {}))
        if said and source not in code and int(row.id[:8], 16) % every == 0:
            _look(said, found)
    return found


def _look(said: str, found: Slices) -> None:
    """What only a sample of the rows is looked at for."""
    from flywheel.process.language import detect

    language = detect(said)[0]
    found.languages[language] += 1
    if language == "en":
        for kind, words in GENDERED.items():
            found.gendered[kind] += sum(1 for _ in words.finditer(said))


@dataclass(frozen=True)
class DataFacts:
    """What a card is written from: the recipe's name and operations, and the summaries of the steps."""

    name: str
    process: tuple[Any, ...]
    ingest: Mapping[str, Any]
    prepare: Mapping[str, Any]
    validate: Mapping[str, Any]
    train: Slices


def card(facts: DataFacts) -> str:
    """Markdown with the metadata block of the hub."""
    licenses = sorted({str(c["license"]).lower() for c in facts.ingest["sources"].values()})
    metadata = {
        "pretty_name": facts.name,
        "license": licenses[0] if len(licenses) == 1 else licenses,
        "language": [code for code, _ in facts.train.languages.most_common(5)],
        "size_categories": [_size_category(facts.validate["kept"])],
    }
    if not facts.train.languages:
        del metadata["language"]
    splits = ", ".join(f"{number:,} {split}" for split, number in facts.validate["rows"].items())
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n",
        f"# Data of {facts.name}\n",
        f"{facts.validate['kept']:,} rows kept of {facts.ingest['read']:,} read. Rows by split: {splits}; "
        f"{facts.prepare['augmented']:,} augmented copies were made for training.\n",
        "## Sources\n",
        _sources(facts),
        "## What was left out, and why\n",
        _left_out(facts),
        "## Operations, in order\n",
        _operations(facts),
        "## Slices of the training rows\n",
        *_slices(facts.train),
        "## Personal identifiers and secrets\n",
        *_masked(facts),
        "## Held-out rows in training\n",
        _contamination(facts),
    ]
    return "\n".join(parts)


def _sources(facts: DataFacts) -> str:
    """Each source through all three steps: kept + dropped + quarantined = read."""
    counts = Counts.of(facts.ingest).after(Counts.of(facts.prepare)).after(Counts.of(facts.validate))
    rows = []
    for name, about in facts.ingest["sources"].items():
        c = counts.sources[name]
        numbers = (c.read, c.kept, c.dropped.total(), c.quarantined.total())
        rows.append((_code(name), about["type"], about["license"], *numbers))
    c = counts.total()
    rows.append(("all", "", "", c.read, c.kept, c.dropped.total(), c.quarantined.total()))
    return _table(("source", "type", "licence", "read", "kept", "dropped", "quarantined"), rows)


def _left_out(facts: DataFacts) -> str:
    steps = [("ingest", facts.ingest), ("prepare", facts.prepare), ("validate", facts.validate)]
    if "finetune_left" in facts.prepare:
        steps.append(("second stage", facts.prepare["finetune_left"]))
    rows = [
        (step, kind, reason, number)
        for step, summary in steps
        for kind in ("dropped", "quarantined")
        for reason, number in sorted(summary[kind].items(), key=lambda r: -r[1])
    ]
    return _table(("step", "what", "reason", "rows"), rows) if rows else "Nothing.\n"


def _operations(facts: DataFacts) -> str:
    rows = [("", o) for o in facts.prepare["operations"]]
    for side, operations in facts.prepare.get("finetune_operations", {}).items():
        rows += [(f"second stage, {side}", o) for o in operations]
    if not rows:
        return "None.\n"
    return _table(("operation", "on", "read", "made"), ((o["operation"], on, o["read"], o["made"]) for on, o in rows))


def _slices(found: Slices) -> Iterable[str]:
    def sized(name: str, size: float) -> str:
        return f"{size:,.0f} {'bytes' if name in found.media else 'characters'}"

    yield _table(
        ("source", "rows", "share", "median size", "largest"),
        (
            (_code(n), len(s), f"{len(s) / found.rows:.1%}", sized(n, statistics.median(s)), sized(n, max(s)))
            for n, s in found.sources.items()
        ),
    )
    sizes = Counter(found.groups)
    yield f"{len(sizes):,} groups; the largest holds {max(sizes.values()) / found.rows:.1%} of the rows.\n"
    if found.labels:
        ratio = max(found.labels.values()) / min(found.labels.values())
        yield _shares("label", found.labels)
        yield f"{len(found.labels):,} labels; the most frequent is {ratio:.3g} times as frequent as the rarest.\n"
    if found.languages:
        yield _shares("language", found.languages, f"rows of a sample of {found.languages.total():,}")
    if found.gendered.total():
        yield _shares("gendered words", found.gendered, "in the English rows of the sample")


def _shares(title: str, counts: Counter[str], unit: str = "rows") -> str:
    rows = ((_code(k), n, f"{n / counts.total():.1%}") for k, n in counts.most_common(SHOWN))
    return _table((title, unit, "share"), rows)


def _masked(facts: DataFacts) -> Iterable[str]:
    operations = {o if isinstance(o, str) else next(iter(o)) for o in facts.process}
    for key, operation in MASKED.items():
        if operation not in operations:
            yield f"`{operation}` is not among the operations.\n"
        elif counts := facts.train.masked[key]:
            yield _table(("kind", "masked in training rows"), ((_code(k), n) for k, n in counts.most_common()))
        else:
            yield f"`{operation}` found none in the training rows.\n"
    yield "Only what its form gives away is looked for; names, and addresses in prose, are not found.\n"


def _contamination(facts: DataFacts) -> str:
    found = facts.validate.get("contamination")
    if found is None:
        return "Not looked for: `data.validate.max_contamination` is empty.\n"
    return (
        f"{found['rows']} of {found['heldout']} held-out rows ({found['rate']:.1%}): {found['shared_runs']} share 13 "
        f"words in a row with training rows, {found['similar']} are nearly the same as one.\n"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _code(word: str) -> str:
    """A word of the data as a code span: no page that shows the card takes it for a link or a picture."""
    plain = " ".join(word.replace("`", "'").replace("|", "\u00a6").split())
    return f"`{plain[:LONGEST] or ' '}`"


def _size_category(rows: int) -> str:
    """The hub's categories."""
    for limit, word in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if rows < limit:
            return word
    return "1M<n<10M" if rows < 10_000_000 else "n>10M"
