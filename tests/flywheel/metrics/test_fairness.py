from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from tiny_speaker import exam, trained

from flywheel.errors import RecipeError
from flywheel.metrics.base import Likelihood
from flywheel.metrics.fairness import between, counterfactual, gaps, slices, within
from flywheel.metrics.identities import SUBJECTS, WORDS
from flywheel.metrics.table import METRICS
from flywheel.record import Record
from flywheel.runtimes.base import Sampling


@dataclass
class Reader:
    """A model whose nats for a character depend on what it reads, and a little on chance."""

    cost: Callable[[str, str], float]
    noise: float = 0.0

    def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        raise NotImplementedError

    def answer(self, rows: Sequence[Record], sampling: Sampling) -> list[str]:
        raise NotImplementedError

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Likelihood]:
        return [
            Likelihood(-len(c) * (self.cost(p, c) + self.noise * jitter(p + c)), len(c))
            for p, c in zip(prompts, completions, strict=True)
        ]


def jitter(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 - 0.5


def rows(count: int = 60) -> list[Record]:
    words = ("plain", "other", "third")
    return [
        Record(str(n), text=f"{words[n % 3]} text number {n} " * (1 + n % 7), origin={"source": f"s{n % 3}"})
        for n in range(count)
    ]


def test_a_slice_that_is_served_worse_is_named() -> None:
    model = Reader(lambda p, c: 1.5 if "other" in c else 1.0, 0.2)
    (metric,) = slices(exam(model, rows(), num_samples=100), min_rows=10)
    assert (metric.name, metric.detail["worst"]) == ("slice_gap_source", "s1")
    assert metric.value == pytest.approx(0.5 / np.log(2), abs=0.1)
    assert metric.baseline is not None
    assert metric.low > 3 * metric.baseline
    assert {name: one["rows"] for name, one in metric.detail["slices"].items()} == {"s0": 20, "s1": 20, "s2": 20}


def test_a_model_that_is_fair_has_the_gap_of_chance() -> None:
    (metric,) = slices(exam(Reader(lambda p, c: 1.0, 0.2), rows(), num_samples=100), min_rows=10)
    assert metric.baseline is not None
    assert metric.value < 3 * metric.baseline


def test_slices_that_are_too_small_are_named_and_not_counted() -> None:
    few = [*rows(), *(Record(f"x{n}", text="rare", origin={"source": "rare"}) for n in range(5))]
    model = Reader(lambda p, c: 9.0 if "rare" in c else 1.0)
    (metric,) = slices(exam(model, few, num_samples=100))
    assert metric.value == pytest.approx(0)
    assert metric.detail["too_small"] == {"rare": 5}
    with pytest.raises(RecipeError, match="two slices"):
        slices(exam(model, rows(30), num_samples=100))


def test_slices_by_length_language_and_label() -> None:
    model = Reader(lambda p, c: 1.0)
    (metric,) = slices(exam(model, rows(100), num_samples=100), by="length", min_rows=5)
    assert len(metric.detail["slices"]) == 4
    tongues = [
        Record(str(n), text=["The weather is fine and we go out.", "Das Wetter ist gut und wir gehen aus."][n % 2] * 3)
        for n in range(40)
    ]
    (metric,) = slices(exam(model, tongues, num_samples=100), by="language", min_rows=5)
    assert set(metric.detail["slices"]) == {"en", "de"}
    pairs = [Record(str(n), prompt="Q", completion="yes", label="ab"[n % 2]) for n in range(40)]
    (metric,) = slices(exam(model, pairs, num_samples=100), by="label")
    assert set(metric.detail["slices"]) == {"a", "b"}


def test_every_byte_is_scored_once_however_long_a_document_is() -> None:
    long = [Record(str(n), text="ä" * (100 + 300 * n), origin={"source": "ab"[n % 2]}) for n in range(10)]
    (metric,) = slices(exam(Reader(lambda p, c: 2 * np.log(2)), long), min_rows=2)
    assert [one["value"] for one in metric.detail["slices"].values()] == pytest.approx([1, 1])


def test_gaps_leave_out_slices_that_were_not_drawn() -> None:
    parts = np.array([[1.0, 0, 1, 0], [0, 3, 0, 1]])
    assert gaps(parts, np.array([[1.0, 1], [2, 0]])).tolist() == [2, 0]


def test_differences_between_groups_and_within_one() -> None:
    nats = np.array([[1.0, 2.0], [1.5, 2.5]])
    assert (between(nats), within(nats)) == (0.5, 1.0)
    assert within(nats[:, :1]) is None


def test_a_biased_model_is_told_from_one_that_does_not_care() -> None:
    biased = Reader(lambda p, c: 1.0 + 0.8 * ("Muslim" in p and "bomb" in c), 0.1)
    fair = Reader(lambda p, c: 1.0, 0.1)
    (bad,), (good,) = (counterfactual(exam(model)) for model in (biased, fair))
    assert bad.detail["largest"][0]["axis"] == "religion"
    assert bad.detail["largest"][0]["completion"] == " bomb."
    assert bad.detail["largest"][0]["gap"] > 0.3
    assert good.detail["largest"][0]["gap"] < 0.1
    assert bad.detail["axes"]["gender"]["gap"] < 0.1 < bad.value + 0.1
    assert good.baseline == pytest.approx(good.value, abs=0.02)


def test_groups_and_templates_of_the_users() -> None:
    biased = Reader(lambda p, c: 1.0 + ("Ossi" in p))
    given = {"groups": {"east": [["Ossi"], ["Wessi"]]}, "templates": {"Der {} ist": [" faul.", " nett."]}}
    (metric,) = counterfactual(exam(biased), **given)  # type: ignore[arg-type]
    assert (metric.value, metric.baseline, metric.unit) == (1, None, "nats/token")
    assert metric.scores is not None
    assert len(metric.scores) == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"groups": {"g": [["a", "b"], ["c"]]}}, "equally many terms"),
        ({"groups": {"g": [["a"]]}}, "two groups"),
        ({"templates": {"no place": ["x"]}}, "one {}"),
    ],
)
def test_groups_and_templates_are_checked_with_the_recipe(argument: dict[str, object], message: str) -> None:
    from flywheel import arguments

    function = METRICS["counterfactual"].function("counterfactual")
    with pytest.raises(RecipeError, match=message):
        arguments.check("evaluate.metrics[0]", "counterfactual", function, argument)


def test_terms_are_exchanged_in_heldout_rows() -> None:
    heldout = [
        Record("1", text="Yesterday the father came home late in the night. Then he slept."),
        Record("2", prompt="Is She the polish kind of Woman?", completion="Yes, certainly."),
        Record("3", text="Nobody is named here at all, and nothing happens to anyone."),
    ]
    seen: list[str] = []

    def cost(prompt: str, completion: str) -> float:
        seen.append(prompt)
        return 1.0 + ("mother" in prompt)

    (metric,) = counterfactual(exam(Reader(cost), heldout), source="heldout")
    assert set(seen) == {
        "Yesterday the father",
        "Yesterday the mother",
        "Is She the polish kind of Woman?",
        "Is He the polish kind of Man?",
    }
    assert metric.value == 0.5
    with pytest.raises(RecipeError, match="counterfactual"):
        counterfactual(exam(Reader(cost), heldout[2:]), source="heldout")


def test_the_lists_are_of_one_shape() -> None:
    for groups in (*SUBJECTS.values(), *WORDS.values()):
        assert len({len(group) for group in groups}) == 1
        assert len(groups) > 1


def test_a_real_model_can_be_asked() -> None:
    (metric,) = counterfactual(exam(trained(False)[0]), templates={"{} was": [" red.", " green."]})
    assert metric.value > 0
    assert metric == counterfactual(exam(trained(False)[0]), templates={"{} was": [" red.", " green."]})[0]
