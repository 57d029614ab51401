from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from flywheel import lines, review, review_rows
from flywheel.errors import SourceError
from flywheel.methods.rows_fault import fault_of
from flywheel.record import Record, write_rows
from flywheel.review import Opened, Verdict, open_batch, opinions
from flywheel.review_report import krippendorff, report

ANNA, BEN, CLEO = "anna", "ben", "cleo"


def questions(directory: Path, count: int = 6) -> Path:
    rows = [{"prompt": f"question {n}", "completion": f"reference {n}"} for n in range(count)]
    (directory / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return directory / "q.jsonl"


def batch(directory: Path, *, rated: bool = False, seed: int = 0, count: int = 6) -> Opened:
    """`mine` against the references, or `mine` alone."""
    asked = review_rows.questions(questions(directory, count))
    mine = {name: f"my answer to {q.prompt}" for name, q in asked.items()}
    sides = [("mine", mine), ("references", {name: q.answer or "" for name, q in asked.items()})]
    review_rows.make(
        directory / "batch.json", review_rows.choose(asked, count, seed), sides[: 2 - rated], ["correct", "kind"], seed
    )
    return open_batch(directory / "batch.json")


def prefer(opened: Opened, rater: str, wins: str) -> None:
    """Verdicts on the items in order: + for the side `mine`, - for the other, = for a tie, a space for none."""
    for item, win in zip(opened.batch.items, wins, strict=False):
        place = next(
            n for n, text in zip("AB", item.answers, strict=True) if text.startswith("my answer") == (win == "+")
        )
        if win != " ":
            choice = "tie" if win == "=" else place
            review.save(opened, verdict(opened, item.id, rater, choice=choice), 0.0)


def rate(opened: Opened, rater: str, points: Sequence[int]) -> None:
    for item, given in zip(opened.batch.items, points, strict=False):
        review.save(opened, verdict(opened, item.id, rater, ratings={"correct": given}), 0.0)


def verdict(opened: Opened, item: str, rater: str, **said: object) -> Verdict:
    return Verdict.model_validate({"batch": opened.digest, "item": item, "rater": rater, **said})


def test_a_batch_does_not_say_whose_answers_they_are(tmp_path: Path) -> None:
    opened = batch(tmp_path, count=40)
    first = [item.answers[0].startswith("my answer") for item in opened.batch.items]
    assert 10 < sum(first) < 30
    assert "mine" not in opened.path.read_text()
    key = json.loads((tmp_path / "batch.key.json").read_text())
    assert key["sides"] == ["mine", "references"]
    assert [key["first"][item.id] == 0 for item in opened.batch.items] == first


def test_the_seed_decides_items_and_order(tmp_path: Path) -> None:
    text = batch(tmp_path, seed=1).path.read_bytes()
    assert batch(tmp_path, seed=1).path.read_bytes() == text
    assert batch(tmp_path, seed=2).path.read_bytes() != text
    assert len(review_rows.choose(review_rows.questions(questions(tmp_path)), 4, 0)) == 4


def test_alike_and_missing_answers_are_left_out(tmp_path: Path) -> None:
    asked = review_rows.questions(questions(tmp_path, 4))
    names = list(asked)
    sides = [("a", {names[0]: "same ", names[1]: "one", names[2]: "x"}), ("b", {names[0]: "same", names[1]: "other"})]
    key = review_rows.make(tmp_path / "b.json", list(asked.values()), sides, [], 0)
    assert (list(key.first), key.identical, key.missing) == ([names[1]], 1, 2)
    rest = [asked[name] for name in (names[0], names[2], names[3])]
    with pytest.raises(SourceError, match="2 without an answer"):
        review_rows.make(tmp_path / "c.json", rest, sides, [], 0)


def test_a_batch_with_verdicts_is_not_overwritten(tmp_path: Path) -> None:
    prefer(batch(tmp_path), ANNA, "+")
    with pytest.raises(SourceError, match="choose another --output"):
        batch(tmp_path, seed=2)


def test_questions_of_parquet_and_conversations(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [Record("1", prompt="q", completion="a"), Record("2", messages=talk), Record("3", text="no question")]
    write_rows(tmp_path / "rows.parquet", rows)
    found = list(review_rows.questions(tmp_path / "rows.parquet").values())
    assert [(q.prompt, q.answer) for q in found] == [("q", "a"), (talk[:1], "Hello")]
    for text in ("{", "[1]\n", '{"text": "no question"}\n'):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(SourceError, match=r"bad\.jsonl"):
            review_rows.questions(tmp_path / "bad.jsonl")
    with pytest.raises(SourceError):
        review_rows.questions(tmp_path / "none.jsonl")


def test_win_rate_and_agreement_of_two(tmp_path: Path) -> None:
    opened = batch(tmp_path)
    prefer(opened, ANNA, "+++-=+")
    prefer(opened, BEN, "++--= ")
    told = report(opinions(opened.path))
    assert told["raters"] == {ANNA: 6, BEN: 5}
    assert told["win_rate"]["value"] == pytest.approx((1 + 1 + 0.5 + 0 + 0.5 + 1) / 6)
    assert told["win_rate"]["low"] < told["win_rate"]["value"] < told["win_rate"]["high"]
    assert told["choices"] == {"a": 6, "tie": 2, "b": 3}
    # Five common items, four alike; chance: (3*2 + 1*2 + 1*1)/25
    assert told["agreement"]["cohen"] == {"anna / ben": pytest.approx((0.8 - 9 / 25) / (1 - 9 / 25))}
    (disagreement,) = told["disagreements"]
    assert disagreement["said"] == {ANNA: "a", BEN: "b"}
    assert disagreement["prompt"].startswith("question ")


def test_mean_points_of_a_scale(tmp_path: Path) -> None:
    opened = batch(tmp_path, rated=True)
    for rater, points in ((ANNA, [5, 4, 3]), (BEN, [5, 4, 2]), (CLEO, [5, 5])):
        rate(opened, rater, points)
    told = report(opinions(opened.path))
    assert list(told["scales"]) == ["correct"]
    assert told["scales"]["correct"]["value"] == pytest.approx((5 + 13 / 3 + 2.5) / 3)
    assert told["scales"]["correct"]["agreement"]["krippendorff"] > told["scales"]["correct"]["agreement"]["fleiss"]
    assert len(told["disagreements"]) == 2
    with pytest.raises(SourceError, match="rated"):
        review_rows.preferences(opinions(opened.path))


def test_the_last_verdict_counts_and_files_from_elsewhere_too(tmp_path: Path) -> None:
    opened = batch(tmp_path)
    prefer(opened, ANNA, "-")
    prefer(opened, ANNA, "+")
    item = opened.batch.items[0].id
    sent = verdict(opened, item, BEN, choice="tie", comment="hard to say")
    lines.append(tmp_path / "batch.verdicts-ben.jsonl", {**sent.model_dump(), "received": 5.0})
    other = {**sent.model_dump(), "batch": "of another batch", "rater": CLEO}
    for junk in (other, [1], {"rater": CLEO}, {**sent.model_dump(), "received": "soon", "rater": CLEO, "item": "none"}):
        lines.append(opened.file, junk)
    told = report(opinions(opened.path))
    assert told["raters"] == {ANNA: 1, BEN: 1}
    assert told["choices"] == {"a": 1, "tie": 1, "b": 0}
    assert told["comments"] == [{"item": item, "rater": BEN, "comment": "hard to say"}]


def test_preferences_are_rows_that_can_be_learned(tmp_path: Path) -> None:
    opened = batch(tmp_path)
    prefer(opened, ANNA, "+-=+-")
    prefer(opened, BEN, "+-=-")
    prefer(opened, CLEO, "--=+")
    rows = review_rows.preferences(opinions(opened.path))
    mine = [row["chosen"].startswith("my answer") for row in rows]
    assert mine == [True, False, True, False]
    assert all(row["rejected"].startswith("my answer") != won for row, won in zip(rows, mine, strict=True))
    fault = fault_of("dpo", ("prompt", "messages"))
    assert {fault(Record("", **row)) for row in rows} == {""}


def test_preferences_of_conversations_can_be_learned_too(tmp_path: Path) -> None:
    asked = review_rows.Question("q", [{"role": "user", "content": "Hi"}])
    review_rows.make(tmp_path / "batch.json", [asked], [("mine", {"q": "my answer"}), ("b", {"q": "other"})], [], 0)
    opened = open_batch(tmp_path / "batch.json")
    prefer(opened, ANNA, "+")
    (row,) = review_rows.preferences(opinions(opened.path))
    assert row == {"messages": asked.prompt, "chosen": "my answer", "rejected": "other"}
    assert fault_of("dpo", ("prompt", "messages"))(Record("", **row)) == ""


@pytest.mark.parametrize("change", [{"mode": "guess"}, {"items": [{"id": "1"}]}, {"more": 1}])
def test_what_is_no_batch_is_refused(tmp_path: Path, change: Mapping[str, object]) -> None:
    opened = batch(tmp_path)
    opened.path.write_text(json.dumps({**json.loads(opened.path.read_text()), **change}))
    with pytest.raises(SourceError, match="batch"):
        open_batch(opened.path)


def test_a_report_needs_its_key_and_a_verdict(tmp_path: Path) -> None:
    opened = batch(tmp_path)
    with pytest.raises(SourceError, match="flywheel review serve"):
        opinions(opened.path)
    review.save(opened, verdict(opened, opened.batch.items[0].id, ANNA, comment="only words"), 0.0)
    with pytest.raises(SourceError, match="flywheel review serve"):
        opinions(opened.path)
    opened.path.write_text(opened.path.read_text() + "\n")
    with pytest.raises(SourceError, match="another batch"):
        opinions(opened.path)


PUBLISHED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
"""Krippendorff (2011), section C: four observers, twelve units."""


def test_published_values_of_krippendorffs_alpha() -> None:
    columns = zip(*(line.split() for line in PUBLISHED.strip().splitlines()), strict=True)
    units = [[int(value) for value in column if value != "."] for column in columns]
    assert krippendorff(units, ordinal=False) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(units, ordinal=True) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff([[1, 1], [2, 2]], ordinal=True) == 1
    assert krippendorff([[1, 1], [1]], ordinal=True) is None
