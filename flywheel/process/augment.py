"""Augmentation of texts: varied copies of training rows, made after the split.

`synonym_replacement`, `random_swap` and `random_deletion` are those of EDA (Wei & Zou 2019, "EDA: Easy Data
Augmentation Techniques for Boosting Performance on Text Classification Tasks"), with case, punctuation and line breaks
left in place. Words are runs of letters and digits, so that languages written without spaces are not varied.

What is varied is `text`, or else `prompt`, or else the user's turns of `messages`; completions, labels and groups stay.
What is drawn for copy k of a row depends on (seed, row id, k) alone, and not on the rows around it. A copy that came
out like its row, or like an earlier copy of it, is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, JsonValue

from flywheel.errors import RecipeError
from flywheel.record import Outcomes, Record, content, provenance_id

if TYPE_CHECKING:
    from numpy.random import Generator

Copies = Annotated[int, Field(ge=1, le=100)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0)]

WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_SPACED_WORD = re.compile(rf"[ \t]*{WORD.pattern}")
_SENTENCE = re.compile(r"(\n+|(?<=[.!?])\s+)")
_LONGEST = 400
"""Characters of a sentence that are translated at once; encoders were trained on about 512 tokens."""


def synonym_replacement(
    rows: Iterable[Record],
    synonyms: str | dict[str, list[str]],
    copies: Copies = 1,
    probability: Probability = 0.1,
    seed: Seed = 0,
) -> Outcomes:
    """Replace each word that has synonyms with one of them, with a probability, and one at least.

    `synonyms`: a mapping, or the path of a file with one: JSON, or lines of `word, synonym, synonym`. Words are found
    whatever their case; the case of the first letter, or of all, is kept. Raises RecipeError for another kind of file.
    """
    table = _synonyms(synonyms)

    def vary(text: str, rng: Generator) -> str:
        known = [found for found in WORD.finditer(text) if found[0].lower() in table]
        if not known:
            return text
        chosen = rng.random(len(known)) < probability
        chosen[rng.integers(len(known))] |= not chosen.any()
        parts, end = [], 0
        for found, replaced in zip(known, chosen, strict=True):
            if replaced:
                choices = table[found[0].lower()]
                parts += [text[end : found.start()], _cased(choices[rng.integers(len(choices))], found[0])]
                end = found.end()
        return "".join(parts) + text[end:]

    for row in rows:
        yield from varied_texts(row, "synonym_replacement", vary, copies, seed)


def random_swap(rows: Iterable[Record], copies: Copies = 1, probability: Probability = 0.1, seed: Seed = 0) -> Outcomes:
    """Exchange two random words, as many times as `probability` x words, and once at least; punctuation stays."""

    def vary(text: str, rng: Generator) -> str:
        words = WORD.findall(text)
        if len(words) < 2:
            return text
        for _ in range(max(1, round(probability * len(words)))):
            first, second = rng.choice(len(words), 2, replace=False)
            words[first], words[second] = words[second], words[first]
        swapped = iter(words)
        return WORD.sub(lambda _: next(swapped), text)

    for row in rows:
        yield from varied_texts(row, "random_swap", vary, copies, seed)


def random_deletion(
    rows: Iterable[Record], copies: Copies = 1, probability: Probability = 0.1, seed: Seed = 0
) -> Outcomes:
    """Leave each word out with a probability (word dropout), with the space before it; one word always stays."""

    def vary(text: str, rng: Generator) -> str:
        words = len(WORD.findall(text))
        if not words:
            return text
        gone = rng.random(words) < probability
        if gone.all():
            gone[rng.integers(words)] = False
        marks = iter(gone)
        left = _SPACED_WORD.sub(lambda found: "" if next(marks) else found[0], text)
        return "\n".join(map(_indented_like, text.split("\n"), left.split("\n")))

    for row in rows:
        yield from varied_texts(row, "random_deletion", vary, copies, seed)


def back_translation(
    rows: Iterable[Record],
    forward: str,
    backward: str,
    copies: Copies = 1,
    temperature: Annotated[float, Field(gt=0, le=5)] = 0.9,
    seed: Seed = 0,
) -> Outcomes:
    """Translate into another language and back (Sennrich et al. 2016), sampled at a temperature (Edunov et al. 2018).

    `forward` and `backward` are local directories of seq2seq checkpoints of the transformers library (Marian, T5,
    M2M100 ...), whose own generation_config says which language to write. Texts are translated by sentences, and line
    breaks stay; one row at a time, so that a row's copies do not depend on its neighbours. Raises RecipeError where a
    directory holds no such checkpoint.
    """
    there, back = (_translator(path, key) for path, key in ((forward, "forward"), (backward, "backward")))

    def vary(text: str, rng: Generator) -> str:
        pieces = list(_sentences(text))
        positions = [i for i, piece in enumerate(pieces) if WORD.search(piece)]
        if positions:
            sentences = [pieces[i] for i in positions]
            for translate in (there, back):
                sentences = translate(sentences, temperature, int(rng.integers(1 << 62)))
            for position, sentence in zip(positions, sentences, strict=True):
                pieces[position] = sentence
        return "".join(pieces)

    for row in rows:
        yield from varied_texts(row, "back_translation", vary, copies, seed)


# ---------------------------------------------------------------- copies


def generator(parent: Record, operation: str, k: int, seed: int) -> Generator:
    """Random numbers for copy k of a row by an operation: PCG64, seeded by a hash of nothing but these and the seed."""
    digest = hashlib.sha256(f"{seed}\0{operation}\0{parent.id}\0{k}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def twin(parent: Record, operation: str, k: int, changes: Mapping[str, Any]) -> Record:
    """Copy k of a row with other content, which carries the row's origin and names it as `parent`."""
    changed = parent.with_fields(**changes, origin={**parent.origin, "augmented": operation, "parent": parent.id})
    return changed.with_fields(id=provenance_id("augment", f"{parent.id}/{operation}/{k}", content(changed)))


def varied_texts(
    row: Record, operation: str, vary: Callable[[str, Generator], str], copies: int, seed: int
) -> Iterator[Record]:
    """The copies of a row whose texts came out different from the row's and from each other's."""
    seen = {content(row)}
    for k in range(copies):
        rng = generator(row, operation, k, seed)
        copy = twin(row, operation, k, _changes(row, vary, rng))
        if content(copy) not in seen:
            seen.add(content(copy))
            yield copy


def _changes(row: Record, vary: Callable[[str, Generator], str], rng: Generator) -> dict[str, Any]:
    if row.text is not None:
        return {"text": vary(row.text, rng)}
    if row.prompt is not None:
        return {"prompt": vary(row.prompt, rng)}
    if row.messages is None:
        return {}
    return {"messages": [{**m, "content": vary(m["content"], rng)} if m["role"] == "user" else m for m in row.messages]}


def _indented_like(line: str, left: str) -> str:
    """What is left of a line, behind the line's own indentation: its first word may have gone."""
    return line[: len(line) - len(line.lstrip(" \t"))] + left.lstrip(" \t")


# ---------------------------------------------------------------- synonyms


def _synonyms(given: str | Mapping[str, list[str]]) -> dict[str, list[str]]:
    table = _synonym_file(Path(given).expanduser()) if isinstance(given, str) else given
    return {word.lower(): list(others) for word, others in table.items() if others}


def _synonym_file(path: Path) -> dict[str, list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _mapping(json.loads(text))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"synonyms {path}",
            found=str(error)[:200],
            expected="a JSON mapping of words to lists of words, or lines of `word, synonym, synonym`",
            remedy="correct the file, or its path",
        ) from error
    lines = [[word.strip() for word in line.split(",")] for line in text.splitlines() if line.strip()]
    return {word: [other for other in others if other] for word, *others in lines}


def _mapping(value: JsonValue) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}")
    for word, others in value.items():
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise ValueError(f"{word!r} without a list of words")
    return value  # type: ignore[return-value]


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


# ---------------------------------------------------------------- translation


def _sentences(text: str) -> Iterator[str]:
    """The pieces of a text, sentences and what separates them; a very long sentence is cut between words."""
    for piece in _SENTENCE.split(text):
        while len(piece) > _LONGEST and (space := piece.rfind(" ", 1, _LONGEST)) > 0:
            yield piece[:space]
            yield " "
            piece = piece[space + 1 :]
        yield piece


@lru_cache(maxsize=4)
def _translator(path: str, key: str) -> Callable[[list[str], float, int], list[str]]:
    """A seq2seq checkpoint as a function of (sentences, temperature, seed)."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    directory = Path(path).expanduser()
    try:
        if not directory.is_dir():
            raise ValueError("no such directory")
        tokenizer = AutoTokenizer.from_pretrained(directory, **options)
        model = AutoModelForSeq2SeqLM.from_pretrained(directory, use_safetensors=True, **options).eval()
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"back_translation.{key}: {path}",
            found=str(error).partition("\n")[0][:200],
            expected="a directory with a seq2seq checkpoint and its tokenizer",
            remedy="name a local directory, such as one that `save_pretrained` wrote",
        ) from error

    def translate(sentences: list[str], temperature: float, seed: int) -> list[str]:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            batch = tokenizer(sentences, return_tensors="pt", padding=True, truncation=True)
            longest = 2 * batch["input_ids"].shape[1] + 16
            tokens = model.generate(**batch, do_sample=True, temperature=temperature, max_new_tokens=longest)
        return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    return translate
