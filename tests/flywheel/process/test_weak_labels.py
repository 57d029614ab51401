from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from flywheel import labelling
from flywheel.process.table import OPERATIONS
from flywheel.process.weak_labels import import_labels, weak_labels
from flywheel.record import Dropped, Quarantined, Record

RULES: dict[str, Any] = {"spam": ["win", "free money"], "ham": r"(?i)\bdear\b"}


def label(text: str, **options: Any) -> Any:
    (found,) = weak_labels([Record("r", text=text, **options)], RULES)
    return found


def test_most_votes_win_and_are_kept() -> None:
    found = label("WIN? Free money, dear!")
    assert found.label == "spam"
    assert found.origin["weak_labels"] == {"votes": {"spam": 2, "ham": 1}, "label": "spam", "conflict": True}
    assert label("Dear all").origin["weak_labels"]["conflict"] is False


def test_keywords_are_whole_words() -> None:
    assert label("winter").label is None
    assert label("to win.").label == "spam"


def test_a_tie_is_quarantined() -> None:
    found = label("dear, you win", origin={"source": "s", "path": "p:1"})
    assert found == Quarantined("r", "conflicting_rules", "p:1", "s", "spam: 1, ham: 1")


def test_an_abstention_is_kept_or_dropped() -> None:
    row = Record("r", text="nothing")
    assert list(weak_labels([row], RULES)) == [row]
    assert list(weak_labels([row], RULES, abstain="drop")) == [Dropped("r", "no_rule")]


def test_a_given_label_stays() -> None:
    found = label("win", label="mine")
    assert (found.label, found.origin["weak_labels"]["label"]) == ("mine", "spam")


def test_rules_read_conversations() -> None:
    talk = [{"role": "user", "content": "Dear all"}]
    (found,) = weak_labels([Record("r", messages=talk)], RULES)
    assert isinstance(found, Record)
    assert found.label == "ham"


@pytest.mark.parametrize("rules", [{}, {"a": "("}, {"a": []}, {"a": [""]}, {"a": 1}, {"a": ""}])
def test_wrong_rules_are_refused_before_a_run(rules: object) -> None:
    hint = get_type_hints(OPERATIONS["weak_labels"].function("weak_labels"), include_extras=True)["rules"]
    TypeAdapter(hint).validate_python(RULES, strict=True)
    with pytest.raises(ValidationError):
        TypeAdapter(hint).validate_python(rules, strict=True)


def test_labels_join_by_id_or_by_content(tmp_path: Path) -> None:
    rows = [Record(f"r{n}", text=f"text {n}", label="old", origin={"source": "s"}) for n in range(4)]
    moved = labelling.digest(rows[1])
    lines: list[dict[str, str]] = [
        *({"id": "r0", "annotator": who, "label": what} for who, what in zip("abc", "xxy", strict=True)),
        {"id": "another", "digest": moved, "annotator": "a", "label": "z"},
        *({"id": "r2", "annotator": who, "label": who} for who in "ab"),
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second, third, fourth = import_labels(rows, str(path))
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.label, first.origin["labels"]) == ("x", {"x": 2, "y": 1})
    assert (second.label, second.origin["labels"]) == ("z", {"z": 1})
    assert third == Quarantined("r2", "disagreement", "", "s", "a: 1, b: 1")
    assert fourth == rows[3]
    assert list(import_labels(rows, str(path), unlabelled="drop"))[3] == Dropped("r3", "unlabelled", "", "s")
