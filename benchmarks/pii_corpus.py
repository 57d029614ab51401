"""A labelled corpus of made-up personal identifiers in realistic places, and of look-alikes that are none.

`make(count, seed)` and `hard(count, seed)` give the same samples for the same arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from pii_lookalikes import HARD, NEGATIVES
from pii_values import FIRST, LAST, MAKERS

FILLERS = [
    "We met on Tuesday and agreed on the plan.", "# TODO clean up", "Regards,", "The committee adjourned at 17:45.",
    "Vielen Dank für Ihre Nachricht!", "— see below —", "return None", "Note:", "<p>Thanks!</p>", "ok", "Прочитано.",
    "In 2019, revenue rose 12.5% to $3,204,118.", "¡Gracias!", "詳細は以下の通りです。",
]  # fmt: skip


@dataclass
class Sample:
    """A text, and `(kind, start, end)` for every identifier in it."""

    text: str
    spans: list[tuple[str, int, int]] = field(default_factory=list)


def make(count: int, seed: int = 0) -> list[Sample]:
    """`count` samples: about half have one to three identifiers, half have look-alikes only."""
    random = Random(seed)
    kinds = sorted([*MAKERS, *["phone"] * 5, *["email", "ipv4", "date_of_birth"] * 2])
    samples = []
    for number in range(count):
        parts = []
        if number % 2:
            parts = [_positive(random, kinds[number // 2 % len(kinds)])]
            while random.random() < 0.3:
                parts.append(_positive(random, random.choice(kinds)))
        while not parts or random.random() < 0.3:
            parts.insert(random.randint(0, len(parts)), Sample(_negative(random)))
        samples.append(_joined(random, parts))
    return samples


def _joined(random: Random, parts: list[Sample]) -> Sample:
    joined = Sample("")
    for position, part in enumerate(parts):
        gap = random.choice([" ", "\n", "\n\n", "  ", "\r\n"]) if position else ""
        filler = random.choice(FILLERS) + " " if random.random() < 0.4 else ""
        offset = len(joined.text) + len(gap) + len(filler)
        joined.text += gap + filler + part.text
        joined.spans += [(kind, start + offset, end + offset) for kind, start, end in part.spans]
    return joined


def _positive(random: Random, kind: str) -> Sample:
    value, contexts = MAKERS[kind](random)
    before, after = random.choice(contexts).split("{}")
    before, after = (_slots(random, part) for part in (before, after))
    return Sample(before + value + after, [(kind, len(before), len(before) + len(value))])


def _negative(random: Random) -> str:
    return _slots(random, random.choice(NEGATIVES)(random))


def _slots(random: Random, text: str) -> str:
    return text.replace("NAME", random.choice(FIRST).title() + " " + random.choice(LAST).title())


def hard(count: int, seed: int = 0) -> list[tuple[str, Sample]]:
    """`count` samples of every form that is hard to find, each with the form's name: `kind: form`."""
    random = Random(seed)
    samples = []
    for _ in range(count):
        for forms in HARD:
            for name, parts in forms(random).items():
                before, value, after = (_slots(random, part) for part in parts)
                kind = name.split(":")[0]
                samples.append((name, Sample(before + value + after, [(kind, len(before), len(before) + len(value))])))
    return samples
