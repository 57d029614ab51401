from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.errors import RecipeError
from flywheel.metrics.labels import (
    MACRO,
    calibration_error,
    classification,
    ece_of,
    ece_parts,
    label,
    labels,
    macro_of,
    macro_parts,
)
from flywheel.record import Record
from tests.flywheel.metrics.scripted import Scripted, exam, exam_of

NAMES = st.lists(st.tuples(st.sampled_from("abcx"), st.sampled_from("abc")), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_macro_averages_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    given_, wanted = [g for g, _ in pairs], [w for _, w in pairs]
    theirs = precision_recall_fscore_support(
        wanted, given_, labels=sorted(set(wanted)), average="macro", zero_division=0
    )
    parts = macro_parts(given_, wanted)
    ours = [macro_of(parts, np.ones((1, len(pairs))), np.array([which]))[0] for which in range(3)]
    assert ours == pytest.approx(theirs[:3])
    found = classification(given_, wanted, seed=0)
    assert [m.name for m in found] == ["accuracy", *MACRO]
    assert [m.value for m in found] == pytest.approx([accuracy_score(wanted, given_), *theirs[:3]])
    assert all(0 <= m.low <= m.high <= 1 for m in found)
    assert [m.scores.value() for m in found if m.scores] == [m.value for m in found]


def test_the_example_of_scikit_learns_documentation() -> None:
    # sklearn.metrics.precision_recall_fscore_support, docstring of scikit-learn 1.9: macro averages
    wanted = ["cat", "dog", "pig", "cat", "dog", "pig"]
    given_ = ["cat", "pig", "dog", "cat", "cat", "dog"]
    values = [m.value for m in classification(given_, wanted, seed=0)]
    assert values == pytest.approx([2 / 6, 0.22222222, 0.33333333, 0.26666667], abs=5e-9)


def test_case_spaces_and_a_full_stop_make_no_difference() -> None:
    accuracy, *_ = classification([" Positive.", "negative ", "who knows"], ["positive", "Negative", "negative"], 0)
    assert accuracy.value == pytest.approx(2 / 3)
    assert accuracy.detail == {"examples": 3, "classes": 2, "unknown_answers": 1}


def test_the_class_of_a_row() -> None:
    assert label(Record("1", prompt="Good film?", completion="yes"), 3) == "yes"
    assert label(Record("1", prompt="Good film?", completion="I think that it is"), 3) is None
    assert label(Record("1", prompt="Good film?", completion="I think that it is", label="yes"), 3) == "yes"
    assert label(Record("1", text="A good film.", label="yes"), 3) == "yes"
    assert label(Record("1", image=b"...", label="yes"), 3) is None
    assert label(Record("1", text="A good film."), 3) is None


def test_a_row_is_asked_by_its_prompt_or_text() -> None:
    rows = [Record("a", text="A good film.", label="yes"), Record("b", prompt="Bad?", completion="no", label="x")]
    rows += [Record("c", text="No label.")]
    speaker = Scripted({"a": "Yes.", "b": "yes"})
    accuracy, *_ = labels(exam(rows, speaker))
    assert accuracy.value == 0.5
    assert [(row.prompt, row.text) for row in speaker.asked] == [("A good film.", None), ("Bad?", None)]


def test_rows_without_classes_are_refused() -> None:
    with pytest.raises(RecipeError, match="labels"):
        labels(exam_of(["a"], ["this is no label at all"]))
    assert len(labels(exam_of(["a"], ["this is no label at all"]), max_words=6)) == 4


def test_calibration_error_of_a_worked_example() -> None:
    # Two bins of ten: .95 sure and half right, .55 sure and all right: .5 * .45 + .5 * .45
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    metric = calibration_error("ece", confidence, right, seed=0, bins=10)
    assert metric.value == pytest.approx(0.45)
    assert metric.low <= metric.value <= metric.high


def test_calibration_error_is_that_of_torchmetrics() -> None:
    ours = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    rng = np.random.default_rng(0)
    for classes, bins in ((2, 15), (4, 15), (4, 10)):
        odds = rng.dirichlet(np.ones(classes), 200).astype(np.float32)
        wanted = rng.integers(0, classes, 200)
        theirs = ours.multiclass_calibration_error(
            torch.from_numpy(odds), torch.from_numpy(wanted), num_classes=classes, n_bins=bins, norm="l1"
        )
        confidence = odds.max(axis=1).astype(np.float64)
        found = calibration_error("ece", confidence, odds.argmax(axis=1) == wanted, 0, bins)
        assert found.value == pytest.approx(float(theirs), abs=1e-6)


def test_a_bin_ends_with_its_upper_edge() -> None:
    parts = ece_parts(np.array([0.0, 0.5, 0.51, 1.0]), np.array([True] * 4), bins=2)
    assert parts[:, 2:].argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert ece_of(parts, np.ones((1, 4)))[0] == pytest.approx((1.5 + 0.49) / 4)
