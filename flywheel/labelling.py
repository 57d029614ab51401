"""Labels from people: a batch to label, the labels that come back, how far annotators agree, and what most of them say.

The ending of a file names its format: `.jsonl`, `.csv` for a spreadsheet, `.json` for Label Studio's import and export.
Labels come back with the row's `id` and the `digest` of its content, so that they also fit a row whose id has changed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from heapq import nsmallest
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from flywheel.errors import SourceError
from flywheel.record import Messages, Record, content, read_rows

Strategy = Literal["random", "uncertain", "stratified"]
MAX_CELL = 32_000
"""Characters of a CSV cell; spreadsheets hold 32,767."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
_FORMULA_WITHIN = re.compile("([;\t\r\n][\"' ]*)(?=[=+@＝＋－＠-])")  # noqa: RUF001
_ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}


@dataclass(frozen=True, slots=True)
class Label:
    """What one annotator said of one row."""

    id: str
    digest: str
    annotator: str
    label: str


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree beyond chance; 1 is always, 0 is as by chance, None is undefined (a single label)."""

    items: int
    """Rows that at least two annotators labelled."""
    annotators: tuple[str, ...]
    observed: float | None
    """Share of the pairs of labels of a row that are equal, averaged over the rows; 0 to 1."""
    cohen: Mapping[str, float | None]
    """Cohen's kappa of each two annotators, `a / b`, over the rows that both labelled."""
    fleiss: float | None
    """Fleiss' kappa over the `fleiss_items` rows that have the most usual number of labels."""
    fleiss_items: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def digest(row: Record) -> str:
    """64 hex digits that name a row's content."""
    return hashlib.sha256(content(row)).hexdigest()


# ---------------------------------------------------------------- a batch to label


def export(rows: Path, out: Path, count: int, strategy: Strategy = "random", seed: int = 0) -> int:
    """Write at most `count` rows of a Parquet file, or directory of them, to label; returns their number. Augmented
    copies are left out: they come into being after labels are imported.

    The same rows, strategy and seed give the same file. Pictures and recordings go to `NAME-files` beside it.
    """
    chosen = choose((row for row in read_rows(rows) if "augmented" not in row.origin), count, strategy, seed)
    media = out.with_name(f"{out.stem}-files")
    lines = [_line(row, media) for row in chosen]
    if out.suffix == ".csv":
        names = list(dict.fromkeys(name for line in lines for name in line))
        with out.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, sorted(names, key=_LAST.__contains__), restval="")
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    elif out.suffix == ".jsonl":
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        out.write_text(text, encoding="utf-8")
    elif out.suffix == ".json":
        tasks = [{"data": {name: line[name] for name in line if name not in _LAST}} for line in lines]
        out.write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        raise _format(out)
    return len(lines)


def choose(rows: Iterable[Record], count: int, strategy: Strategy, seed: int) -> list[Record]:
    """At most `count` rows, holding no more than that for each stratum in memory.

    `random` draws by the hash of seed and id; `uncertain` takes first what weak labels left open or in conflict;
    `stratified` takes as many rows of each label (or, without labels, of each source) as it can.
    """
    if strategy == "random":
        return nsmallest(count, rows, key=lambda row: _draw(row, seed))
    if strategy == "uncertain":
        return nsmallest(count, rows, key=lambda row: (-uncertainty(row), _draw(row, seed)))
    strata: defaultdict[str, list[Record]] = defaultdict(list)
    for row in rows:
        stratum = strata[row.label or str(row.origin.get("source", ""))]
        stratum.append(row)
        if len(stratum) >= 2 * count + 1_000:
            stratum[:] = nsmallest(count, stratum, key=lambda row: _draw(row, seed))
    ordered = [sorted(strata[name], key=lambda row: _draw(row, seed)) for name in sorted(strata)]
    turns = sorted((place, number) for number, stratum in enumerate(ordered) for place in range(len(stratum)))
    return [ordered[number][place] for place, number in turns[:count]]


def uncertainty(row: Record) -> float:
    """Normalised entropy, 0 to 1, of the votes of weak labels; 1 where no rule voted or none was asked."""
    votes = row.origin.get("weak_labels", {}).get("votes", {})
    total = sum(votes.values())
    if not total:
        return 1.0
    if len(votes) == 1:
        return 0.0
    return float(-sum(n / total * math.log(n / total) for n in votes.values()) / math.log(len(votes)))


def _draw(row: Record, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{row.id}".encode()).digest()


_LAST = ("label", "annotator")
"""What the annotator fills in."""


def _line(row: Record, media: Path) -> dict[str, str]:
    texts = {name: getattr(row, name) for name in ("text", "prompt", "completion", "messages", "chosen", "rejected")}
    line = {"id": row.id, "digest": digest(row)}
    line |= {name: _shown(value) for name, value in texts.items() if value is not None}
    for name, data in (("image", row.image), ("audio", row.audio)):
        if data is not None:
            media.mkdir(parents=True, exist_ok=True)
            ending = next((end for start, end in _ENDINGS.items() if data.startswith(start)), ".bin")
            (media / f"{row.id}{ending}").write_bytes(data)
            line[name] = f"{media.name}/{row.id}{ending}"
    suggested = row.label or row.origin.get("weak_labels", {}).get("label")
    return line | ({"suggestion": suggested} if suggested else {}) | dict.fromkeys(_LAST, "")


def _shown(value: str | Messages) -> str:
    if isinstance(value, str):
        return value
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in value)


def _cell(text: str) -> str:
    """What a spreadsheet shows as it is: it would run a text that begins as a formula, or a part of one, where the
    settings of its country make it take semicolons or lines apart.
    """
    inert = _FORMULA_WITHIN.sub(r"\1'", text[:MAX_CELL])
    return f"'{inert}"[:MAX_CELL] if inert.startswith(_FORMULA) else inert[:MAX_CELL]


# ---------------------------------------------------------------- labels that come back


def read_labels(path: Path) -> list[Label]:
    """The labels of a file, or of all files of a directory in the order of their names.

    A row without a label was not labelled. Where no annotator is named it is the file's name. What one annotator said
    of one row last counts. Raises SourceError for a file that is not there or holds no labels.
    """
    if not path.exists():
        raise SourceError(
            f"labels {path}",
            found="no file of that name",
            expected="a .csv, .jsonl or .json file, or a directory of them",
            remedy="correct `path` of import_labels",
        )
    files = sorted(file for file in path.iterdir() if file.suffix in _READERS) if path.is_dir() else [path]
    found: dict[tuple[str, str], Label] = {}
    for file in files:
        if file.suffix not in _READERS:
            raise _format(file)
        try:
            labels = [label for label in _READERS[file.suffix](file) if label.label and (label.id or label.digest)]
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise _unreadable(file, f"{type(error).__name__}: {error}") from error
        for label in labels:
            found[label.id or label.digest, label.annotator] = label
    if not found:
        raise _unreadable(path, "no row with an `id` or `digest` and a `label`")
    return list(found.values())


def _read_csv(path: Path) -> Iterator[Label]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=first.count)  # spreadsheets write what their country's settings say
        for line in csv.DictReader(file, delimiter=delimiter):
            yield _label({name: _uncelled(value) for name, value in line.items() if isinstance(value, str)}, path)


def _uncelled(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:2] in _FORMULA else text


def _read_jsonl(path: Path) -> Iterator[Label]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                yield _label(json.loads(line), path)


def _read_label_studio(path: Path) -> Iterator[Label]:
    """Its JSON export (tasks with annotations), and JSON-MIN (one object for each annotation)."""
    for task in json.loads(path.read_text(encoding="utf-8-sig")):
        if "annotations" not in task:
            yield _label({**task, "label": task.get("choice", task.get("label"))}, path)
            continue
        for annotation in task["annotations"]:
            by = annotation.get("completed_by")
            name = by.get("email", by.get("id")) if isinstance(by, Mapping) else by
            chosen = [
                r["value"]["choices"][0] for r in annotation.get("result", ()) if r.get("value", {}).get("choices")
            ]
            if chosen and not annotation.get("was_cancelled"):
                yield _label({**task["data"], "label": chosen[0], "annotator": name}, path)


def _label(line: Mapping[str, Any], path: Path) -> Label:
    annotator, label = line.get("annotator"), line.get("label")
    return Label(
        str(line.get("id") or "").strip(),
        str(line.get("digest") or "").strip(),
        path.stem if annotator is None or annotator == "" else str(annotator).strip(),
        "" if label is None else str(label).strip(),
    )


_READERS: dict[str, Callable[[Path], Iterator[Label]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_label_studio,
}


def _format(path: Path) -> SourceError:
    return SourceError(
        f"labels {path}",
        found=f"the ending {path.suffix or '(none)'}",
        expected=".csv, .jsonl, or .json for Label Studio",
        remedy="name a file with one of these endings",
    )


def _unreadable(path: Path, found: str) -> SourceError:
    return SourceError(
        f"labels {path}",
        found=found,
        expected="rows with `id` (or `digest`), `label` and `annotator`, or an export of Label Studio",
        remedy="correct the file, or export the labels again",
    )


# ---------------------------------------------------------------- agreement


def majority(labels: Iterable[str]) -> str | None:
    """What most annotators say of a row; None for a tie."""
    counts = Counter(labels).most_common(2)
    return counts[0][0] if len(counts) == 1 or (counts and counts[0][1] > counts[1][1]) else None


def agreement(labels: Sequence[Label]) -> Agreement:
    """How far the annotators of these labels agree."""
    items: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for label in labels:
        items[label.id or label.digest][label.annotator] = label.label
    rated = [said for _, said in sorted(items.items()) if len(said) > 1]
    annotators = tuple(sorted({label.annotator for label in labels}))
    sizes = Counter(map(len, rated))
    usual = max(sizes, key=lambda size: (sizes[size], size), default=0)
    same_size = [Counter(said.values()) for said in rated if len(said) == usual]
    shares = [_pairs_that_agree(Counter(said.values())) for said in rated]
    return Agreement(
        items=len(rated),
        annotators=annotators,
        observed=sum(shares) / len(shares) if shares else None,
        cohen={f"{a} / {b}": _cohen(rated, a, b) for a, b in combinations(annotators, 2)},
        fleiss=fleiss_kappa(same_size),
        fleiss_items=len(same_size),
    )


def _cohen(rated: Sequence[Mapping[str, str]], a: str, b: str) -> float | None:
    both = [(said[a], said[b]) for said in rated if a in said and b in said]
    if len({label for pair in both for label in pair}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*both, strict=True)
    return float(cohen_kappa_score(first, second))


def fleiss_kappa(items: Sequence[Mapping[str, int]]) -> float | None:
    """Fleiss' kappa of items that have the same number of labels each, given as label → how many annotators chose it.

    -1 to 1; None without items or where only one label was ever chosen. Source: Fleiss (1971), Measuring nominal scale
    agreement among many raters, Psychological Bulletin 76(5), 378-382.
    """
    totals = Counter[str]()
    for item in items:
        totals.update(item)
    if len(+totals) < 2:
        return None
    observed = sum(map(_pairs_that_agree, items)) / len(items)
    expected = sum((count / totals.total()) ** 2 for count in totals.values())
    return (observed - expected) / (1 - expected)


def _pairs_that_agree(item: Mapping[str, int]) -> float:
    """Share of the pairs of an item's labels that are equal."""
    size = sum(item.values())
    return sum(count * (count - 1) for count in item.values()) / (size * (size - 1))
