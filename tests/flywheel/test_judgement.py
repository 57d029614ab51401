"""What the gate is given, and that it refuses what is planted: a worse, a slower, a larger, a contaminated version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel import judgement
from flywheel.gate import Decision, Rival, decide
from flywheel.metrics import score_files
from flywheel.metrics.metric import Metric, bootstrap_mean
from flywheel.recipe import Objective, Recipe
from tests.recipes import code_recipe

QUALITY = np.random.default_rng(0).normal(0.6, 0.1, 200)


def summaries(**changes: Any) -> dict[str, Any]:
    served = {"precision": "int8", "bytes": 5_000_000, "milliseconds_per_step": 2.0}
    other = {"precision": "fp32", "bytes": 20_000_000, "milliseconds_per_step": 4.0}
    return {
        "evaluate": {"metrics": {"rouge_l": bootstrap_mean("rouge_l", "higher", QUALITY).as_dict()}},
        "export": {"default": "int8", "precisions": [other, served]},
        "validate": {"contamination": {"rate": 0.02}},
        "champion": {"version": 0, "metrics": {}, "fault": ""},
        **changes,
    }


def decided(
    tmp_path: Path, mine: list[Metric], theirs: list[Metric], reported: tuple[str, ...] = (), **limits: Any
) -> Decision:
    objective = {"metric": "rouge_l", "thresholds": limits, "reported": reported}
    recipe = Recipe.model_validate(code_recipe(tmp_path, objective=objective))
    directories = tmp_path / "mine", tmp_path / "theirs"
    for metrics, directory in zip((mine, theirs), directories, strict=True):
        directory.mkdir()
        score_files.write(metrics, directory)
    champion = {"version": 3, "metrics": {}, "fault": ""}
    rival = judgement.rival(recipe, champion, directories)
    return decide(recipe.objective, judgement.measured(summaries()), rival)


def of(**values: Any) -> list[Metric]:
    return [bootstrap_mean(name, "higher", np.asarray(v, dtype=np.float64)) for name, v in values.items()]


def test_figures_of_every_step_are_gathered() -> None:
    found = judgement.measured(summaries())
    assert (found["megabytes"]["value"], found["milliseconds_per_step"]["value"]) == (5.0, 2.0)
    assert found["contamination"]["value"] == 0.02
    assert found["rouge_l"]["value"] == pytest.approx(QUALITY.mean())


def test_a_better_version_beats_the_champion_on_the_same_examples(tmp_path: Path) -> None:
    found = decided(tmp_path, of(rouge_l=QUALITY + 0.05), of(rouge_l=QUALITY))
    assert found.promote
    assert "beats 0.6015 of version 3 on the same 200 examples" in found.reasons[0].text


def test_a_worse_version_is_refused(tmp_path: Path) -> None:
    assert not decided(tmp_path, of(rouge_l=QUALITY - 0.05), of(rouge_l=QUALITY)).promote


def test_a_version_that_is_better_and_elsewhere_worse_is_refused(tmp_path: Path) -> None:
    mine, theirs = of(rouge_l=QUALITY + 0.05, safe=QUALITY - 0.1), of(rouge_l=QUALITY, safe=QUALITY)
    found = decided(tmp_path, mine, theirs)
    assert [r.holds for r in found.reasons] == [True, False]
    assert "safe 0.5015 is worse than 0.6015" in found.reasons[1].text


def test_what_the_objective_only_reports_refuses_nothing(tmp_path: Path) -> None:
    mine, theirs = of(rouge_l=QUALITY + 0.05, safe=QUALITY - 0.1), of(rouge_l=QUALITY, safe=QUALITY)
    assert decided(tmp_path, mine, theirs, reported=("safe",)).promote


def test_a_metric_that_cannot_be_compared_refuses(tmp_path: Path) -> None:
    mine, theirs = of(rouge_l=QUALITY + 0.05), of(rouge_l=QUALITY, safe=QUALITY)
    found = decided(tmp_path, mine, theirs)
    assert not found.promote
    assert "safe was not compared with version 3: only one of the two was measured" in [r.text for r in found.reasons]


def test_a_loss_below_the_minimum_effect_refuses_nothing(tmp_path: Path) -> None:
    mine, theirs = of(rouge_l=QUALITY + 0.05, safe=QUALITY - 0.001), of(rouge_l=QUALITY, safe=QUALITY)
    assert decided(tmp_path, mine, theirs).promote


def test_several_metrics_are_corrected_for(tmp_path: Path) -> None:
    """Each of twenty is a little worse by chance, one of them with p below .025 and not below .025 / 20."""
    rng = np.random.default_rng(5)
    noise = {f"m{i}": QUALITY - 0.01 + rng.normal(0, 0.08, 200) for i in range(20)}
    found = decided(tmp_path, of(rouge_l=QUALITY + 0.05, **noise), of(rouge_l=QUALITY, **dict.fromkeys(noise, QUALITY)))
    assert found.promote, [r.text for r in found.reasons]


def test_too_few_examples_are_told_with_the_number_that_it_takes(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, 20)
    found = decided(tmp_path, of(rouge_l=QUALITY[:20] + noise), of(rouge_l=QUALITY[:20]))
    assert not found.promote
    assert "to find a gain of 1.0%" in found.reasons[0].text


@pytest.mark.parametrize("limit", ["contamination", "megabytes", "milliseconds_per_step"])
def test_hard_limits_refuse_what_is_planted(tmp_path: Path, limit: str) -> None:
    """A contaminated, a too large and a too slow version, each better than the champion."""
    found = decided(tmp_path, of(rouge_l=QUALITY + 0.05), of(rouge_l=QUALITY), **{limit: {"max": 0.01}})
    assert not found.promote
    assert found.reasons[0].metric == limit


def test_a_champion_that_cannot_be_measured_is_not_beaten() -> None:
    found = decide(Objective(metric="rouge_l"), judgement.measured(summaries()), Rival(3, faults={"": "files changed"}))
    assert not found.promote
    assert found.reasons[0].text == "nothing could be compared with version 3: files changed"


def test_scores_survive_their_files(tmp_path: Path) -> None:
    metrics = of(rouge_l=QUALITY)
    score_files.write(metrics, tmp_path)
    better, scores = score_files.read(tmp_path)["rouge_l"]
    assert better == "higher"
    assert scores.value() == metrics[0].value
