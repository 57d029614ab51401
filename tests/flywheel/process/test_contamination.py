import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.errors import SourceError
from flywheel.process.contamination import COMMON, decontaminate, rate
from flywheel.record import Dropped, Record

VOCABULARY = [f"word{n}" for n in range(3_000)]


def text(seed: int, size: int = 60) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=size))


def part(seed: int, start: int, end: int) -> str:
    return " ".join(text(seed).split()[start:end])


def jsonl(folder: Path, *rows: object) -> str:
    path = folder / "evaluation.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def contaminated(rows: list[Record], against: str, **arguments: float) -> list[str]:
    outcomes = list(decontaminate(rows, against, **arguments))  # type: ignore[arg-type]
    assert [o.id for o in outcomes] == [r.id for r in rows]
    assert all(o.reason == "contaminated" for o in outcomes if isinstance(o, Dropped))
    return [o.id for o in outcomes if isinstance(o, Dropped)]


def test_a_row_that_shares_thirteen_words_is_dropped(tmp_path: Path) -> None:
    against = jsonl(tmp_path, {"question": text(1), "answer": text(2)}, {"question": text(3)})
    rows = [
        Record(id="apart", text=text(9)),
        Record(id="thirteen", text=f"{text(8)} {part(1, 20, 33).upper()}, {text(7)}"),
        Record(id="twelve", text=f"{text(8)} {part(1, 20, 32)} {text(7)}"),
        Record(id="answer", messages=[{"role": "user", "content": "?"}, {"role": "user", "content": part(2, 0, 13)}]),
        Record(id="picture", image=b"png"),
    ]
    assert contaminated(rows, against) == ["thirteen", "answer"]
    assert contaminated(rows, against, ngram=12) == ["thirteen", "twelve", "answer"]


def test_a_row_that_is_nearly_the_same_is_dropped(tmp_path: Path) -> None:
    words = text(1).split()
    for place in range(6, 60, 12):
        words[place] = "changed"
    row = Record(id="varied", text=" ".join(words))
    against = jsonl(tmp_path, {"text": text(1)})
    assert contaminated([row], against) == []
    assert contaminated([row], against, threshold=0.3) == ["varied"]


def test_short_texts_count_as_a_whole(tmp_path: Path) -> None:
    against = jsonl(tmp_path, {"prompt": part(1, 0, 9)}, {"prompt": "What is it?"})
    rows = [
        Record(id="nine words inside", text=f"{text(8)} {part(1, 0, 9)} {text(7)}"),
        Record(id="eight of them", text=f"{text(8)} {part(1, 0, 8)} {text(7)}"),
        Record(id="three words inside", text=f"{text(8)} what is it {text(7)}"),
        Record(id="three words", prompt="what is it"),
    ]
    assert contaminated(rows, against) == ["nine words inside", "three words"]


def test_what_many_evaluation_texts_share_is_their_template(tmp_path: Path) -> None:
    row = [Record(id="same template", text=f"{text(1)} {text(5)}")]
    few = jsonl(tmp_path, *({"text": f"{text(1)} {text(100 + n)}"} for n in range(COMMON)))
    assert contaminated(row, few) == ["same template"]
    many = jsonl(tmp_path, *({"text": f"{text(1)} {text(100 + n)}"} for n in range(COMMON + 1)))
    assert contaminated(row, many) == []


def test_evaluation_texts_may_lie_in_parquet_and_plain_text(tmp_path: Path) -> None:
    rows = [Record(id=str(n), text=f"{text(20 + n)} {part(n, 5, 25)}") for n in range(4)]
    pq.write_table(pa.table({"id": [0], "text": [text(1)], "note": [text(2)]}), tmp_path / "e.parquet")
    assert contaminated(rows, str(tmp_path / "e.parquet")) == ["1"]
    (tmp_path / "lines.txt").write_text(f"{text(1)}\n{text(3)}\n")
    assert contaminated(rows, str(tmp_path / "lines.txt")) == ["1", "3"]
    (tmp_path / "paragraphs.txt").write_text(text(2).replace(" ", "\n") + "\n\n" + text(3))
    assert contaminated(rows, str(tmp_path / "paragraphs.txt")) == ["2", "3"]


def test_many_rows_keep_their_order(tmp_path: Path) -> None:
    against = jsonl(tmp_path, *({"text": text(n)} for n in range(0, 100, 2)))
    rows = [Record(id=str(n), text=f"{text(n % 100)} {n}") for n in range(5_000)]
    assert contaminated(rows, against) == [str(n) for n in range(0, 5_000, 2)]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("none.jsonl", None, "No such file"),
        ("e.csv", b"a,b", "a file that ends in .csv"),
        ("e.jsonl", b"{", "Expecting"),
        ("e.jsonl", b'{"text": "?!"}', "1 texts without words"),
        ("e.txt", b"\xff\xfe", "codec"),
        ("e.parquet", b"PAR1", "Parquet"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, name: str, content: bytes | None, found: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"(?s)decontaminate: .*{name}.*{found}.*against"):
        contaminated([Record(id="1", text="a")], str(tmp_path / name))


def test_the_rate_counts_held_out_rows_that_share_a_run() -> None:
    heldout = [Record(id=f"h{n}", text=text(n)) for n in range(10)]
    train = [Record(id=f"t{n}", text=text(100 + n)) for n in range(5_000)]
    train[17] = Record(id="leak", text=f"{part(3, 10, 23)} {text(5)}")
    train[4_999] = Record(id="late", text=text(3))
    report = rate(iter(train), iter(heldout))
    assert report["rate"] == 0.2
    assert (report["heldout"], report["contaminated"], report["train"], report["train_sharing"]) == (10, 2, 5_000, 2)
    assert (report["ngrams"], report["shared"]) == (10 * 48, 2 * 48)
    assert sorted((e["heldout"], e["train"]) for e in report["examples"]) == [("h3", "leak"), ("h5", "leak")]


def test_the_rate_of_nothing_is_zero() -> None:
    assert rate([], [])["rate"] == 0
    assert rate([Record(id="t", text=text(1))], [Record(id="h", image=b"png")])["rate"] == 0
