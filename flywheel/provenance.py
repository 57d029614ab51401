"""Provenance: which sources and rows made a version of a model, and where a row or a text is in its data.

A version knows the fingerprints of the artifacts that it was made from (its lineage); the rest is read there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel import artifact, rowscan
from flywheel.record import Record, facts, texts
from flywheel.rowscan import TEXTS
from flywheel.subject import Subject, excerpt, spoken

if TYPE_CHECKING:
    import pyarrow as pa

DATASETS = ("ingest", "prepare", "validate")
"""Steps whose artifacts are datasets: rows, and lists of what was left out."""
LISTS = {"ingest": ("left.jsonl",), "prepare": ("left.jsonl", "finetune_left.jsonl")}
"""Step → its lists of rows that were left out."""
SPOKEN = TEXTS[:-1]
"""Columns in which a text is looked for."""
MOST = 20
"""Rows that are shown for a text."""
NEAREST = 5
_GRAMS = 48
"""Runs of words of a text that are looked for, evenly spread over it, where it has more."""

Lineage = Mapping[str, str]
"""Step → fingerprint of its artifact."""


@dataclass(frozen=True)
class Found:
    """A row of a dataset, or of the list of what was left out of it."""

    id: str
    where: str
    """`train`, `heldout`, `finetune_train`, ...; `quarantined: <expectation>`; or `left out by <step>: <reason>`."""
    source: str
    path: str
    license: str = ""
    excerpt: str = ""
    parent: str = ""
    """Id of the row that it was made from, if it was."""
    similarity: float = 1.0
    """Share (0 to 1) of the runs of words of the text that was asked for, which the row has too."""


# ---------------------------------------------------------------- a version


def dataset(store: Path, lineage: Lineage) -> dict[str, Any]:
    """What a version was made from: sources with their counts, what was left out and why, and where the rows lie."""
    made = {step: artifact.load(artifact.location(store, step, lineage[step])) for step in DATASETS}
    files = {split: file for file, split in _files(store, lineage)}
    by_source = {split: facts(file)["sources"] for split, file in files.items()}
    ingredients = [name for name in made["ingest"].ingredients if name.startswith("file:")]
    sources = [
        {
            "name": name,
            "type": count.get("type", ""),
            "license": count.get("license", ""),
            "files": sum(i.startswith(f"file:{name}/") and not i.endswith(")") for i in ingredients),
            "read": count["read"],
            "rows": {split: counts[name] for split, counts in by_source.items() if name in counts},
        }
        for name, count in made["ingest"].summary["sources"].items()
    ]
    left_out = {step: {**made[step].summary["dropped"], **made[step].summary["quarantined"]} for step in DATASETS}
    return {
        "lineage": dict(lineage),
        "sources": sources,
        "read": made["ingest"].summary["read"],
        "rows": made["validate"].summary["rows"],
        "left_out": left_out,
        "files": {split: str(file) for split, file in files.items()},
    }


def row(store: Path, lineage: Lineage, identity: str) -> list[Found]:
    """Where a row, and what was made from it, is in a version's data, or which step left it out and why.

    Empty where it never was.
    """
    places = dict(_files(store, lineage))
    scan = rowscan.rows(places, ("id", "origin"), rowscan.of_ids([identity]), whole=True)
    kept = (found_row(r, places[file], excerpt("\n".join(texts(r)))) for file, r in scan.records())
    return [*kept, *_left(store, lineage, [identity])]


@dataclass(frozen=True)
class Said:
    """Rows that say a text, and rows that nearly do."""

    rows: list[Found]
    """MOST at most."""
    nearest: list[Found]
    """Where no row of the version's data says it: NEAREST at most, the nearest first."""


def text(store: Path, lineage: Lineage, wanted: str) -> Said:
    """Rows of a version's data that say a text; where there is none, rows that said it when they were read, and those
    of the data that share the most runs of words with it.

    Capitals, white space and the form of Unicode make no difference. Runs are of five words, as near duplicates are
    found by; of fewer, down to two, where the text has fewer than ten.
    """
    subject, query, places = Subject(wanted), _Query(wanted), dict(_files(store, lineage))
    scan = rowscan.rows(places, SPOKEN, _either(_first(rowscan.saying(subject)), query.choose), whole=True)
    picked = list(scan.records())
    if exact := [(file, row) for file, row in picked if any(spoken(row, subject))]:
        return Said([found_row(row, places[file], subject.excerpt(row)) for file, row in exact[:MOST]], [])
    shares = query.similarities(["\n".join(texts(row)) for _, row in picked])
    near = sorted(zip(shares, picked, strict=True), key=lambda one: -one[0])[:NEAREST]
    return Said(
        _earlier(store, lineage, subject, places),
        [found_row(row, places[file], query.excerpt(row), round(float(share), 3)) for share, (file, row) in near],
    )


def _either(first: rowscan.Choose, second: rowscan.Choose) -> rowscan.Choose:
    """What the first picks, or where that is nothing, the second."""

    def choose(table: pa.Table) -> Any:
        import pyarrow.compute as pc

        mask = first(table)
        return second(table) if mask is None or not pc.any(mask).as_py() else mask

    return choose


def _earlier(store: Path, lineage: Lineage, subject: Subject, places: Mapping[Path, str]) -> list[Found]:
    """Rows that said a subject when they were read, with what became of them."""
    read = sorted((artifact.location(store, "ingest", lineage["ingest"]) / "rows").glob("*.parquet"))
    scan = rowscan.rows(read, SPOKEN, _first(rowscan.saying(subject)), whole=True)
    rows = [row for _, row in scan.records() if any(spoken(row, subject))][:MOST]
    ids = [row.id for row in rows]
    where = {f.id: f.where for f in _left(store, lineage, ids)}
    for file, table in rowscan.rows(places, ("id",), rowscan.of_ids(ids), whole=False).tables.items():
        where |= dict.fromkeys(table["id"].to_pylist(), f"{places[file]}, where preparation changed it")
    return [found_row(row, where[row.id], subject.excerpt(row)) for row in rows if row.id in where]


class _Query:
    """The runs of words of a text."""

    def __init__(self, wanted: str) -> None:
        import numpy as np

        from flywheel.process import shingles

        hashes, counts = shingles.words([wanted])
        self.size = max(2, min(shingles.WORDS, int(counts[0]) // 2))
        self.runs = np.unique(shingles.grams(hashes, counts, self.size)[0])
        self.pattern = _any_run(wanted, self.size)

    def choose(self, table: pa.Table) -> Any:
        """The nearest of some rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if table.num_columns == 1 or self.pattern is None:
            return None
        said = pc.binary_join_element_wise(*(pc.fill_null(c, "") for c in table.columns[1:]), "\n")
        places = pc.indices_nonzero(pc.match_substring_regex(said, self.pattern)).to_numpy()
        shares = self.similarities(said.take(places).to_pylist())
        best = {int(places[i]) for i in shares.argsort(kind="stable")[::-1][:NEAREST] if shares[i] > 0}
        return pa.array([i in best for i in range(table.num_rows)])

    def excerpt(self, row: Record) -> str:
        """The words of a row around the first run that it shares."""
        said = " ".join("\n".join(texts(row)).split())
        at = re.search(self.pattern or "", said)
        return excerpt(said, at.start() if at else 0, at.end() if at else 0)

    def similarities(self, others: Sequence[str]) -> Any:
        """The share of the runs that each of some texts has, shape (texts,)."""
        import numpy as np

        from flywheel.process import shingles

        runs, counts = shingles.grams(*shingles.words(others), self.size)
        owners = np.repeat(np.arange(len(others), dtype=np.uint64), counts)
        shared = np.isin(runs, self.runs)
        pairs = np.unique(np.stack([owners[shared], runs[shared]]), axis=1)
        return np.bincount(pairs[0].astype(np.int64), minlength=len(others)) / max(1, len(self.runs))


def _any_run(wanted: str, size: int) -> str | None:
    """A regular expression for any of the runs of `size` words of a text; None for a text without words."""
    from flywheel.process.shingles import UNSPACED

    alone = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED)
    words = re.findall(rf"[{alone}]|[^\W{alone}]+", wanted.casefold())
    if not words:
        return None
    starts = max(1, len(words) - size + 1)
    runs = {_run(words[start : start + size], alone) for start in {i * starts // _GRAMS for i in range(_GRAMS)}}
    return f"(?i)(?:{'|'.join(sorted(runs))})"


def _run(words: Sequence[str], alone: str) -> str:
    """A regular expression for words that follow each other; those of scripts without spaces do so at once."""
    found = re.escape(words[0])
    for word in words[1:]:
        found += re.escape(word) if re.match(f"[{alone}]", word) else rf"\W+{re.escape(word)}"
    return found


# ---------------------------------------------------------------- the files of a version


def _files(store: Path, lineage: Lineage) -> Iterator[tuple[Path, str]]:
    """What was trained on and evaluated, and what validation set aside."""
    for file in sorted(artifact.location(store, "validate", lineage["validate"]).glob("*.parquet")):
        yield file, file.stem


def _first(choose: rowscan.Choose) -> rowscan.Choose:
    """The first of the rows that are picked at a time: a word that all rows say is found soon."""

    def first(table: pa.Table) -> Any:
        import pyarrow as pa

        if (mask := choose(table)) is None:
            return None
        picked = mask.to_numpy()
        return pa.array(picked & (picked.cumsum() <= 2 * MOST))

    return first


def _left(store: Path, lineage: Lineage, ids: Iterable[str]) -> Iterator[Found]:
    """Rows that were left out, with the step and the reason."""
    choose = rowscan.of_ids(ids)
    for step, names in LISTS.items():
        for name in names:
            if (file := artifact.location(store, step, lineage[step]) / name).exists():
                for line in rowscan.left_out(file, choose):
                    yield left_line(step, line)


def left_line(step: str, line: Mapping[str, str]) -> Found:
    """A line about a row that was left out."""
    return Found(line["id"], f"left out by {step}: {line['reason']}", line["source"], line["path"])


def found_row(row: Record, place: str, words: str, similarity: float = 1.0) -> Found:
    """A row of a dataset, with some of its words."""
    origin = {name: str(row.origin.get(name, "")) for name in ("source", "path", "license", "parent")}
    where = f"quarantined: {row.origin['reasons'][0]}" if place == "quarantine" else place
    return Found(row.id, where, excerpt=words, similarity=similarity, **origin)
