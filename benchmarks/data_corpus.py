"""A corpus of web-like documents with known flaws, for benchmarks: equal seeds and files on the disk, equal bytes.

The prose is that of the documentation strings of the standard library and of installed packages (and of a file of real
texts), a paragraph at a time; paragraphs are used again in other company once they run out, so that two documents share
one at most by chance. Into that go, by `SHARES`: exact and near copies, documents in other languages, addresses of
people and machines, mojibake, character references, typography and loose white space.
"""

# ruff: noqa: RUF001  (other scripts are what it is about)
from __future__ import annotations

import html
import json
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SHARES = {
    "exact_copy": 0.06,
    "near_copy": 0.06,
    "other_language": 0.10,
    "pii": 0.10,
    "mojibake": 0.04,
    "entities": 0.04,
    "typography": 0.30,
    "loose_space": 0.25,
}
"""Share of documents with each; the last five are drawn one by one for documents that are no copies."""
FILE_BYTES = 4 << 20
"""Of one file of JSON Lines."""

_STRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_HOLDER = ("tests", "test", "__pycache__")


def write(folder: Path, size: int, more: Path | None = None, seed: int = 0) -> dict[str, Any]:
    """Write about `size` bytes of documents (`id`, `text`) into `folder`/part-*.jsonl; returns what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    facts: Counter[str] = Counter()
    held, number, file = 0, 0, None
    for position, (text, flaws) in enumerate(documents(size, more, seed)):
        if file is None or held >= FILE_BYTES:
            if file is not None:
                file.close()
            file, held, number = (folder / f"part-{number:04d}.jsonl").open("wb"), 0, number + 1
        line = json.dumps({"id": f"{position:07d}", "text": text}, ensure_ascii=False).encode() + b"\n"
        held += file.write(line)
        facts["documents"] += 1
        facts["bytes"] += len(text.encode())
        facts.update(flaws)
    if file is not None:
        file.close()
    return {**facts, "files": number}


def documents(size: int, more: Path | None, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Texts of `size` bytes in all, and the flaws of each."""
    rng = random.Random(seed)
    prose = _Prose(paragraphs(more), rng)
    earlier: list[str] = []
    done = 0
    while done < size:
        kind = rng.random()
        if earlier and kind < SHARES["exact_copy"]:
            text, flaws = rng.choice(earlier), ["exact_copy"]
        elif earlier and kind < SHARES["exact_copy"] + SHARES["near_copy"]:
            text, flaws = edited(rng.choice(earlier), rng), ["near_copy"]
        elif kind > 1 - SHARES["other_language"]:
            text, flaws = foreign(rng), ["other_language"]
        else:
            text, flaws = flawed(prose.document(), rng)
        if len(earlier) < 20_000:
            earlier.append(text)
        else:
            earlier[rng.randrange(len(earlier))] = text
        done += len(text.encode())
        yield text, flaws


class _Prose:
    """Documents of random paragraphs, each of which is used once before any is used again."""

    def __init__(self, paragraphs: Sequence[str], rng: random.Random) -> None:
        self._paragraphs, self._rng, self._left = list(paragraphs), rng, list[str]()

    def document(self) -> str:
        wanted, found, length = self._rng.lognormvariate(7.3, 0.8), list[str](), 0
        while length < wanted:
            if not self._left:
                self._left = list(self._paragraphs)
                self._rng.shuffle(self._left)
            found.append(self._left.pop())
            length += len(found[-1])
        return "\n\n".join(found)


def paragraphs(more: Path | None) -> list[str]:
    """Distinct paragraphs of 80 to 3,000 characters that are mostly letters and spaces, in a fixed order."""
    places = sysconfig.get_paths()
    files = [f for place in (places["stdlib"], places["purelib"]) for f in sorted(Path(place).rglob("*.py"))]
    found: dict[str, None] = {}
    for file in files:
        if not any(part in _HOLDER for part in file.parts):
            for text in _STRING.findall(file.read_text(encoding="utf-8", errors="ignore")):
                found |= dict.fromkeys(prose(text))
    if more is not None:
        for line in more.read_text(encoding="utf-8").splitlines():
            found |= dict.fromkeys(prose(json.loads(line)["text"]))
    return list(found)


def prose(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        words = " ".join(block.split())
        if 80 <= len(words) <= 3_000 and sum(map(str.isalpha, words)) + words.count(" ") > 0.88 * len(words):
            yield words


def edited(text: str, rng: random.Random) -> str:
    """A copy in which about one word in eighty is another."""
    words = text.split(" ")
    for _ in range(1 + len(words) // 80):
        words[rng.randrange(len(words))] = rng.choice(words)
    return " ".join(words)


def flawed(text: str, rng: random.Random) -> tuple[str, list[str]]:
    """The text with the flaws that are drawn for it."""
    flaws = [name for name in FLAWS if rng.random() < SHARES[name]]
    for name in flaws:
        text = FLAWS[name](text, rng)
    return text, flaws


def _with_people(text: str, rng: random.Random) -> str:
    """One to three sentences with an e-mail address or an address on the internet."""
    sentences = text.split(". ")
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(("anna.schmidt", "j_doe", "maria", "li.wei", "o.brien42", "support"))
        address = (
            f"{name}@{rng.choice(('mail', 'corp', 'lab'))}{rng.randrange(1000)}.{rng.choice(('com', 'org', 'de'))}"
        )
        host = f"{rng.randint(11, 223)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randint(10, 254)}"
        said = rng.choice((f"Write to {address} for more", f"The server at host {host} answered", f"Mail: {address}"))
        sentences.insert(rng.randrange(len(sentences) + 1), said)
    return ". ".join(sentences)


def _with_typography(text: str, rng: random.Random) -> str:
    """Curly quotes, dashes and accents."""
    text = text.replace("'", "\u2019").replace(" - ", " \u2013 ").replace("naive", "na\u00efve")
    words = text.split(" ")
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(words))
        words[place] = rng.choice(
            (f"\u201c{words[place]}\u201d", f"{words[place]}\u2026", "caf\u00e9", "S\u00e3o Paulo")
        )
    return " ".join(words)


def _as_mojibake(text: str, rng: random.Random) -> str:
    """Typography in UTF-8 that was read as Windows-1252."""
    read = [
        bytes([byte]).decode("cp1252", "ignore") or chr(byte) if byte > 127 else chr(byte)
        for byte in _with_typography(text, rng).encode()
    ]
    return "".join(read)


def _with_entities(text: str, rng: random.Random) -> str:
    """Escaped as in HTML, with an ampersand."""
    words = text.split(" ")
    words.insert(rng.randrange(len(words) + 1), 'R&D "&"')
    return html.escape(" ".join(words)).replace("&#x27;", "&rsquo;")


def _with_loose_space(text: str, rng: random.Random) -> str:
    """Doubled and hard spaces, spaces at the ends of lines, many line ends."""
    words = text.split(" ")
    for _ in range(1 + len(words) // 20):
        place = rng.randrange(len(words))
        words[place] += rng.choice((" ", "  ", "\u00a0", "\t", " \n", "\n\n\n\n"))
    return " ".join(words)


FLAWS = {
    "pii": _with_people,
    "typography": _with_typography,
    "mojibake": _as_mojibake,
    "entities": _with_entities,
    "loose_space": _with_loose_space,
}


def foreign(rng: random.Random) -> str:
    """A document in another language: articles of the Universal Declaration of Human Rights in some order."""
    sentences = list(rng.choice(list(LANGUAGES.values())))
    found = []
    for _ in range(rng.randint(1, 8)):
        rng.shuffle(sentences)
        found.append(" ".join(sentences))
    return "\n\n".join(found)


LANGUAGES = {
    "de": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
        "Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
        "Jeder hat das Recht auf Leben, Freiheit und Sicherheit der Person.",
        "Niemand darf in Sklaverei oder Leibeigenschaft gehalten werden.",
        "Jeder hat das Recht, überall als rechtsfähig anerkannt zu werden.",
        "Alle Menschen sind vor dem Gesetz gleich und haben ohne Unterschied Anspruch auf gleichen Schutz.",
    ),
    "fr": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
        "Ils sont doués de raison et de conscience et doivent agir dans un esprit de fraternité.",
        "Tout individu a droit à la vie, à la liberté et à la sûreté de sa personne.",
        "Nul ne sera tenu en esclavage ni en servitude.",
        "Chacun a le droit à la reconnaissance en tous lieux de sa personnalité juridique.",
        "Tous sont égaux devant la loi et ont droit sans distinction à une égale protection de la loi.",
    ),
    "es": (
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
        "Dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
        "Todo individuo tiene derecho a la vida, a la libertad y a la seguridad de su persona.",
        "Nadie estará sometido a esclavitud ni a servidumbre.",
        "Todo ser humano tiene derecho al reconocimiento de su personalidad jurídica.",
        "Todos son iguales ante la ley y tienen derecho a igual protección de la ley.",
    ),
    "it": (
        "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
        "Essi sono dotati di ragione e di coscienza e devono agire in spirito di fratellanza.",
        "Ogni individuo ha diritto alla vita, alla libertà ed alla sicurezza della propria persona.",
        "Nessun individuo potrà essere tenuto in stato di schiavitù o di servitù.",
        "Tutti sono eguali dinanzi alla legge e hanno diritto ad una eguale tutela da parte della legge.",
    ),
    "ru": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах.",
        "Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",
        "Каждый человек имеет право на жизнь, на свободу и на личную неприкосновенность.",
        "Никто не должен содержаться в рабстве или в подневольном состоянии.",
        "Все люди равны перед законом и имеют право на равную защиту закона.",
    ),
    "zh": (
        "人人生而自由,在尊严和权利上一律平等。",
        "他们赋有理性和良心,并应以兄弟关系的精神相对待。",
        "人人有权享有生命、自由和人身安全。",
        "任何人不得使为奴隶或奴役。",
        "法律之前人人平等,并有权享受法律的平等保护。",
    ),
}
"""Articles 1 to 7 of the Universal Declaration of Human Rights, in part."""
