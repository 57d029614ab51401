"""Texts for fixtures: as many different ones as a test needs, the same ones at every run."""

from __future__ import annotations

import random

_ENGLISH = (
    "the {a} {n} near the {p} {v} every {t}, although nobody in the {p} could explain why the {n} was so {a}",
    "when the {a} {n} finally {v} at the {p}, the whole town talked about it until the following {t}",
    "our neighbour keeps a {a} {n} behind the {p}, and each {t} she tells the children how it {v}",
    "nothing about the {p} had changed since that {t}, except that a {a} {n} now {v} beside the old gate",
    "they walked from the {p} to the harbour last {t} because the {n} had {v} and the road was {a}",
)
_WORDS = {
    "a": "quiet heavy silver broken narrow gentle crooked ancient hollow bright stubborn faded curious wooden",
    "n": "lantern ferry orchard violin ladder compass kettle sparrow wagon mirror barrel candle anchor blanket",
    "p": "station museum bakery lighthouse library stable bridge chapel market warehouse garden theatre quarry",
    "v": "vanished returned trembled collapsed whistled waited drifted glowed turned stopped rattled",
    "t": "morning winter Sunday evening autumn afternoon spring Thursday night summer",
}
GERMAN = (
    "Der alte Leuchtturm am Hafen wurde im letzten Winter geschlossen, weil niemand mehr die Treppe reparieren wollte.",
    "Unsere Nachbarin erzählt den Kindern jeden Abend, wie der Wagen damals im Nebel hinter der Brücke verschwand.",
    "Als die Fähre endlich ankam, wartete auf dem Marktplatz schon die halbe Stadt mit Laternen und warmen Decken.",
    "Im Garten hinter der Bibliothek steht ein hölzernes Tor, das sich seit vielen Jahren nicht mehr öffnen lässt.",
)


def english(name: str, number: int, sentences: int = 3) -> list[str]:
    """Some texts of a few sentences, unlike each other and unlike those of any other name."""
    draw = random.Random(name)
    return [" ".join(_sentence(draw) for _ in range(sentences)) for _ in range(number)]


def _sentence(draw: random.Random) -> str:
    said = draw.choice(_ENGLISH)
    for slot, words in _WORDS.items():
        while f"{{{slot}}}" in said:
            said = said.replace(f"{{{slot}}}", draw.choice(words.split()), 1)
    return said[0].upper() + said[1:] + "."
