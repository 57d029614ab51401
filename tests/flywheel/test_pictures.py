import io
import math

import pytest
from PIL import Image

from flywheel import pictures

HISTORY = [{"step": s, "loss": 8.0 / s, "learning_rate": 0.003 / s} for s in range(20, 200, 20)]
METRICS = {
    "bits_per_byte": {"value": 1.68, "low": 1.65, "high": 1.71, "better": "lower", "baseline": 1.77, "before": 8.0},
    "parse_rate": {"value": 0.6, "low": 0.5, "high": 0.7, "better": "higher", "baseline": None, "before": None},
}


def size(png):
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        return picture.format, picture.size


def test_a_loss_curve_is_a_picture_with_something_in_it():
    png = pictures.loss_curve(HISTORY)
    assert size(png) == ("PNG", (840, 500))
    assert png != pictures.loss_curve([{**row, "loss": row["loss"] + 1} for row in HISTORY])


def test_equal_figures_give_equal_bytes():
    assert pictures.loss_curve(HISTORY) == pictures.loss_curve(HISTORY)
    assert pictures.metrics(METRICS) == pictures.metrics(METRICS)


@pytest.mark.parametrize("history", [[{"step": 1, "loss": 2.0}], [{"step": 1, "loss": math.nan}], []])
def test_short_histories_are_drawn(history):
    assert size(pictures.loss_curve(history))[0] == "PNG"


def test_more_metrics_make_a_higher_picture():
    (_, (_, one)), (_, (_, two)) = (size(pictures.metrics(m)) for m in ({"parse_rate": METRICS["parse_rate"]}, METRICS))
    assert two > one


@pytest.mark.parametrize("value", [0.0, -3.0, math.nan])
def test_odd_values_are_drawn(value):
    metric = {"value": value, "low": value, "high": value, "better": "higher", "baseline": math.inf, "before": 0.0}
    assert size(pictures.metrics({"odd": metric}))[0] == "PNG"


TRIALS = [
    {"number": 0, "state": "finished", "value": 2.0},
    {"number": 1, "state": "pruned", "value": None},
    {"number": 2, "state": "finished", "value": 1.0},
]


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[:1], TRIALS[1:2]])
def test_the_history_of_a_search_is_drawn(trials):
    assert size(pictures.search_history(trials, "bits_per_byte", "lower")) == ("PNG", (840, 420))


def test_the_direction_of_the_metric_is_seen():
    lower, higher = (pictures.search_history(TRIALS, "m", better) for better in ("lower", "higher"))
    assert lower != higher


def test_the_importance_of_keys_is_drawn():
    few, more = ({f"key{n}": 1 / count for n in range(count)} for count in (1, 5))
    assert size(pictures.importance(more, "m"))[1][1] > size(pictures.importance(few, "m"))[1][1]
