from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.errors import RecipeError
from flywheel.recipe_sources import SyntheticSource
from flywheel.record import Record
from flywheel.sources import synthetic
from flywheel.sources.slots import Grammar, Row, fill

SPELL = {
    "templates": {
        "prompt": ["Spell {word}.", "What is {a} + {a}?"],
        "completion": ["{word}, {word}!", "Twice {a}."],
        "label": ["spell", "sum"],
    },
    "slots": {"word": ["{kind} apple", "fig"], "kind": ["red", "green"], "a": {"min": 1, "max": 99}},
}


def rows(count: int, **changes: Any) -> list[Record]:
    source = SyntheticSource.model_validate({"type": "synthetic", "count": count, **SPELL, **changes})
    reader = synthetic.reader(source, "made", None)
    found = [row for entry in reader.entries() for row in reader.read(entry)]
    assert all(isinstance(row, Record) for row in found)
    return found  # type: ignore[return-value]


def identities(count: int, **changes: Any) -> list[str]:
    source = SyntheticSource.model_validate({"type": "synthetic", "count": count, **SPELL, **changes})
    reader = synthetic.reader(source, "made", None)
    return [entry.identity for entry in reader.entries()]


def test_a_slot_means_the_same_in_every_column_of_a_row() -> None:
    found = rows(200)
    assert {row.label for row in found} == {"spell", "sum"}
    for row in found:
        assert row.prompt is not None
        if row.label == "spell":
            word = row.prompt.removeprefix("Spell ").removesuffix(".")
            assert row.completion == f"{word}, {word}!"
        else:
            first, second = row.prompt.removeprefix("What is ").removesuffix("?").split(" + ")
            assert first == second
            assert row.completion == f"Twice {first}."
    assert {row.completion.split(",")[0] for row in found if row.label == "spell" and row.completion} == {
        "red apple",
        "green apple",
        "fig",
    }


def test_a_row_depends_on_the_seed_and_its_number_alone() -> None:
    assert rows(50) == rows(80)[:50]
    assert rows(50) != rows(50, seed=1)
    assert len({row.id for row in rows(50)}) == 50


def test_provenance() -> None:
    row = rows(3)[2]
    assert row.prompt is not None
    assert row.completion is not None
    size = len(row.prompt) + 1 + len(row.completion)
    expected = {"source": "made", "path": "rows-00000:2", "license": "CC0-1.0", "size": size, "group": "2"}
    assert row.origin == expected
    grouped = rows(1, templates={"text": ["{word}"], "group": ["g{a}"]})[0]
    assert grouped.origin["group"].startswith("g")


def test_a_larger_count_keeps_the_whole_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "BLOCK", 10)
    assert [len(identities(n)) for n in (1, 10, 11, 25)] == [1, 1, 2, 3]
    assert identities(25)[:2] == identities(30)[:2]
    assert identities(25)[2] != identities(30)[2]
    assert identities(10, seed=1) != identities(10)
    assert len(rows(25)) == 25


def test_a_grammar_that_calls_itself_is_drawn_anew_and_ends() -> None:
    slots = {"sum": ["{digit}", "({sum} + {sum})"], "digit": {"min": 0, "max": 9}}
    found = [fill("{sum}", slots, Random(seed)) for seed in range(300)]
    assert all(eval(text, {}) >= 0 for text in found)  # noqa: S307
    assert any(len(set(text) - set("()+ ")) > 2 for text in found)
    endless = {"s": ["{s}{s}"] * 99 + ["x"]}
    assert set(fill("{s}", endless, Random(0))) == {"x"}


def test_literal_braces() -> None:
    assert fill("{{{a}}} {{a}}", {"a": ["x"]}, Random(0)) == "{x} {a}"


@pytest.mark.parametrize(
    ("templates", "slots", "said"),
    [
        (["{missing}"], {}, "{missing}"),
        (["{a}"], {"a": ["{b}"]}, "{b}"),
        (["{"], {}, "single {"),
        (["{not a slot}"], {}, "single {"),
        (["x}"], {}, "single }"),
        (["{a}"], {"a": []}, "empty"),
        (["{a}"], {"a": ["{b}"], "b": ["{a}"]}, "leads back"),
        (["{a}"], {"a": {"min": 3, "max": 2}}, "above max"),
        (["{a}"], {"a": {"low": 3}}, "the keys low"),
    ],
)
def test_templates_that_cannot_be_filled(templates: list[str], slots: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        rows(1, templates={"text": templates}, slots=slots)
    assert said in str(error.value)


@pytest.mark.parametrize("templates", [{}, {"text": []}, {"image": ["x"]}, {"messages": ["x"]}])
def test_columns_that_cannot_be_written(templates: dict[str, list[str]]) -> None:
    with pytest.raises((RecipeError, ValueError)):
        rows(1, templates=templates, slots={})


TEXTS = st.lists(st.text(st.sampled_from("ab{}xy "), max_size=8), min_size=1, max_size=3)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(template=st.text(max_size=12), slots=st.dictionaries(st.sampled_from(["a", "b", "x"]), TEXTS, max_size=3))
def test_any_grammar_ends_or_is_refused(template: str, slots: dict[str, list[str]]) -> None:
    try:
        grammar = Grammar(slots)
        grammar.check([template])
    except RecipeError:
        return
    assert isinstance(Row(grammar, Random(0)).fill(template), str)
