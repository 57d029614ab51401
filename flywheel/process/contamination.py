"""Evaluation texts must not be trained on: they are found by shared runs of words and by near duplicates.

Runs of 13 words are what Brown et al. 2020 (Language Models are Few-Shot Learners, appendix C) look for. What is not
found: paraphrases and translations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flywheel.errors import SourceError
from flywheel.process.duplicates import Mask, Sketches, leaks, sketch
from flywheel.process.shingles import Counts, Hashes, grams, words
from flywheel.record import COLUMNS, Outcomes, Record, drop, texts

NGRAM = 13
"""Words in a run that is too long to be shared by chance."""
SHORT = 8
"""An evaluation text of at least so many words, but less than a run, counts as a whole; a shorter one only where it is
a whole row."""
COMMON = 10
"""A run that stands in more evaluation texts than these belongs to their template, and says nothing."""
EXAMPLES = 20
"""Pairs of rows that a report names at most."""

_BATCH_ROWS, _BATCH_BYTES = 4_096, 1 << 22

Indices = NDArray[np.int64]


def decontaminate(
    rows: Iterable[Record],
    against: Annotated[str, Field(min_length=1)],
    ngram: Annotated[int, Field(ge=5, le=100)] = NGRAM,
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8,
) -> Outcomes:
    """Drop rows that hold evaluation data, the texts of the file `against`: `contaminated`.

    A row is dropped where it shares a run of `ngram` words with one of them or is at least `threshold` similar to one.
    The file is JSON Lines or Parquet, one text for each line or row (all its texts joined), or plain text: paragraphs,
    or lines where no line is blank. Raises SourceError where it cannot be read or has no words.
    """
    path = Path(against).expanduser()
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    evaluation, sketches = _evaluation(path, ngram, stat.st_mtime_ns, stat.st_size)
    for batch in batches(rows):
        shared = np.zeros(len(batch), np.bool_)
        shared[evaluation.hits(*words([_text(row) for row in batch]))[0]] = True
        similar = _similar(sketches, batch, threshold)
        for row, by_run, by_set in zip(batch, shared.tolist(), similar.tolist(), strict=True):
            if by_run or by_set:
                yield drop(row, "contaminated", f"shares {ngram} words" if by_run else "nearly the same")
            else:
                yield row


@dataclass(frozen=True)
class Shared:
    """The runs of words that held-out rows share with training rows."""

    ids: list[str]
    """Of the held-out rows."""
    contaminated: Mask
    """Which of them share a run, shape (held-out rows,)."""
    ngrams: int
    """Runs of the held-out rows."""
    shared: int
    """Those of them that stand in training rows."""
    train: int
    """Training rows."""
    train_sharing: int
    """Those of them that share a run."""
    examples: list[dict[str, str]]
    """Pairs of ids, `heldout` and `train`: EXAMPLES at most."""


def rate(train: Iterable[Record], heldout: Iterable[Record], ngram: int = NGRAM) -> dict[str, Any]:
    """How many held-out rows share a run of `ngram` words with a training row.

    `heldout` rows looked at, `contaminated` ones and their share `rate`; and what else `Shared` counts.
    """
    found = shared_runs(train, heldout, ngram)
    number = int(found.contaminated.sum())
    return {
        "ngram": ngram,
        "heldout": len(found.ids),
        "contaminated": number,
        "rate": number / max(1, len(found.ids)),
        "ngrams": found.ngrams,
        "shared": found.shared,
        "train": found.train,
        "train_sharing": found.train_sharing,
        "examples": found.examples,
    }


def shared_runs(train: Iterable[Record], heldout: Iterable[Record], ngram: int = NGRAM) -> Shared:
    """Which held-out rows share a run of `ngram` words with a training row. Reads training rows as a stream; memory is
    bounded by the held-out runs, some 40 bytes for each.
    """
    ids, evaluation = _indexed(heldout, ngram)
    seen = np.zeros(evaluation.ngrams, np.bool_)
    contaminated, examples = np.zeros(len(ids), np.bool_), list[dict[str, str]]()
    read = touched = 0
    for batch in batches(train):
        rows, runs = evaluation.hits(*words([_text(row) for row in batch]))
        read, touched = read + len(batch), touched + len(np.unique(rows))
        new = ~seen[runs]
        for row, run in zip(rows[new].tolist(), runs[new].tolist(), strict=True):
            if seen[run]:
                continue
            seen[run] = True
            owners = evaluation.owners(run)
            fresh = owners[~contaminated[owners]].tolist()
            contaminated[owners] = True
            examples += [{"heldout": ids[owner], "train": batch[row].id} for owner in fresh]
            del examples[EXAMPLES:]
    return Shared(ids, contaminated, evaluation.ngrams, int(seen.sum()), read, touched, examples)


class Runs:
    """The runs of words of evaluation texts, each with the texts it stands in."""

    def __init__(self, hashes: Hashes, counts: Counts, size: int) -> None:
        """From the words of the texts, as `words` gives them; `size` words are a run."""
        self._sizes = np.clip(counts, min(SHORT, size), size)
        self._parts: list[_Part] = []
        for length in np.unique(self._sizes[counts > 0]).tolist():
            chosen = (self._sizes == length) & (counts > 0)
            runs, numbers = grams(hashes[np.repeat(chosen, counts)], counts[chosen], length)
            owners = np.repeat(np.flatnonzero(chosen), numbers)
            self._parts.append(_Part(length, runs, owners, COMMON if length == size else len(counts)))
        self.ngrams = sum(len(part.hashes) for part in self._parts)

    def hits(self, hashes: Hashes, counts: Counts) -> tuple[Indices, Indices]:
        """Which texts, given by their words, hold which runs: two arrays of the same length, in no special order."""
        found_texts, found_runs, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for part in self._parts:
            runs, numbers = grams(hashes, counts, part.length)
            places, run = part.find(runs)
            found_texts.append(np.searchsorted(np.cumsum(numbers), places, side="right"))
            found_runs.append(run + start)
            start += len(part.hashes)
        return np.concatenate(found_texts), np.concatenate(found_runs)

    def owners(self, run: int) -> Indices:
        """The evaluation texts that hold a run."""
        for part in self._parts:
            if run < len(part.hashes):
                return part.owners[part.firsts[run] : part.firsts[run + 1]]
            run -= len(part.hashes)
        raise IndexError(run)


class _Part:
    """Runs of one length: sorted distinct hashes, and the texts that each stands in."""

    def __init__(self, length: int, runs: Hashes, owners: Indices, common: int) -> None:
        order = np.lexsort((owners, runs))
        runs, owners = runs[order], owners[order]
        fresh = np.append(True, (runs[1:] != runs[:-1]) | (owners[1:] != owners[:-1]))[: len(runs)]
        hashes, numbers = np.unique(runs[fresh], return_counts=True)
        kept = numbers <= common
        self.length, self.hashes = length, hashes[kept]
        self.owners: Indices = owners[fresh][np.repeat(kept, numbers)]
        self.firsts = np.append(0, np.cumsum(numbers[kept]))
        # A table of the leading bits answers most questions without a search.
        self._shift = np.uint64(64 - max(10, (8 * len(self.hashes)).bit_length()))
        self._leading = np.zeros(1 << (64 - int(self._shift)), np.bool_)
        self._leading[self.hashes >> self._shift] = True

    def find(self, runs: Hashes) -> tuple[Indices, Indices]:
        """Places in `runs` where one of these runs stands, and which one it is."""
        places = np.flatnonzero(self._leading[runs >> self._shift])
        if not len(places):
            return places, places
        found = np.minimum(np.searchsorted(self.hashes, runs[places]), len(self.hashes) - 1)
        same = self.hashes[found] == runs[places]
        return places[same], found[same]


def _similar(sketches: Any, batch: list[Record], threshold: float) -> Mask:
    """Which rows are at least `threshold` similar to an evaluation text."""
    found = sketch(batch)
    both = Sketches([lambda: sketches, lambda: found])
    side = np.zeros(len(both), np.uint8)
    side[: sketches.num_rows] = 1
    return leaks(both, side, threshold)[sketches.num_rows :]


def batches(rows: Iterable[Record], most: int = _BATCH_BYTES) -> Iterator[list[Record]]:
    """Rows in lists of _BATCH_ROWS, or of about `most` characters and bytes."""
    waiting, held = list[Record](), 0
    for row in rows:
        waiting.append(row)
        held += sum(map(len, (*texts(row), row.image or b"", row.audio or b"")))
        if len(waiting) == _BATCH_ROWS or held >= most:
            yield waiting
            waiting, held = [], 0
    if waiting:
        yield waiting


def _text(row: Record) -> str:
    return "\n".join(texts(row))


def _indexed(rows: Iterable[Record], ngram: int) -> tuple[list[str], Runs]:
    """The ids of rows and the runs of their words."""
    ids, hashes, counts = list[str](), [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for batch in batches(rows):
        found, numbers = words([_text(row) for row in batch])
        ids += [row.id for row in batch]
        hashes.append(found)
        counts.append(numbers)
    return ids, Runs(np.concatenate(hashes), np.concatenate(counts), ngram)


# ---------------------------------------------------------------- the file of evaluation texts


@lru_cache(maxsize=4)
def _evaluation(path: Path, ngram: int, modified: int, size: int) -> tuple[Runs, Any]:
    """The runs and the sketches of the texts of a file; a changed file is read again."""
    try:
        rows = [Record(id=str(number), text=text) for number, text in enumerate(dict.fromkeys(_read(path)))]
    except (OSError, ValueError) as error:  # undecodable text, bad JSON and pyarrow's errors are ValueErrors
        raise _unreadable(path, str(error)) from error
    runs = _indexed(rows, ngram)[1]
    if not runs.ngrams:
        raise _unreadable(path, f"{len(rows)} texts without words")
    return runs, sketch(rows)


def _read(path: Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8-sig") as lines:
            for line in filter(str.strip, lines):
                yield _joined(json.loads(line))
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield _joined(row)
    elif path.suffix in (".txt", ".md"):
        whole = path.read_text(encoding="utf-8-sig").strip()
        yield from whole.split("\n\n" if "\n\n" in whole else "\n")
    else:
        raise ValueError(f"a file that ends in {path.suffix or 'nothing'}")


def _joined(row: Any) -> str:
    """All texts of a row: those of its standard columns, or every text in it where it has none of these."""
    named = {name: row[name] for name in COLUMNS[:6] if row.get(name)} if isinstance(row, Mapping) else {}
    return "\n".join(_strings(named or row))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key != "role":
                yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _unreadable(path: Path, found: str) -> SourceError:
    return SourceError(
        f"evaluation texts for decontaminate: {path}",
        found=found[:200],
        expected="a .jsonl, .parquet or .txt file in UTF-8 with at least one text",
        remedy="correct `against`, or write the texts as one JSON object a line",
    )
