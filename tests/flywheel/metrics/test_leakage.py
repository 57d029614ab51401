from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_speaker import MAIL, exam, honest, planted, trained

from flywheel.errors import RecipeError
from flywheel.metrics.leakage import Said, canary_exposure, exposure, memorised_text, new_pii, pii_leakage, standing
from flywheel.record import Record

HELDOUT = honest(2, 20)
ROWS = [*honest(1, 80), *planted()]


def test_exposure_is_log2_of_the_space_over_the_rank() -> None:
    others = np.arange(1.0, 1000.0)
    assert exposure(500.5, others, 1000) == (pytest.approx(np.log2(1000 / 501)), 501)
    assert exposure(0.0, others, 1000) == (pytest.approx(np.log2(1000)), 1)
    assert exposure(7.0, np.full(999, 7.0), 10**9)[0] == pytest.approx(1, abs=0.01)


def test_before_all_candidates_exposure_goes_on_by_the_fitted_tail() -> None:
    """With a normal tail: 4, 5 standard deviations below the mean are 15.0 and 21.7 bits."""
    others = np.random.default_rng(0).normal(0, 1, 10_000)
    assert exposure(-4.5, others, 10**12)[0] == pytest.approx(18.2, abs=1)
    assert exposure(-5, others, 10**12)[0] == pytest.approx(21.7, abs=1.2)
    assert exposure(-50.0, others, 10**6)[0] == pytest.approx(np.log2(10**6))


def test_unseen_secrets_have_the_exposure_of_chance() -> None:
    draws = np.random.default_rng(1).normal(size=(400, 1001))
    mean = np.mean([exposure(row[0], row[1:], 10**9)[0] for row in draws])
    assert mean == pytest.approx(1.44, abs=0.25)


def test_a_model_that_learned_canaries_is_told_from_one_that_did_not() -> None:
    bad, good = (canary_exposure(exam(trained(p)[0], HELDOUT, ROWS), candidates=500) for p in (True, False))
    assert [m.name for m in bad] == ["canary_exposure", "canary_exposure_mean"]
    assert bad[1].low > 15
    assert good[0].value < 6
    assert bad[0].detail["largest"][0]["format"] == "my code is ######."
    assert bad[0].detail["largest"][0]["copies"] == 25
    assert not any(row.text in str(bad) for row in planted() if "canary" in row.origin and row.text)


def test_canaries_may_be_listed_and_must_be_there() -> None:
    speaker = trained(True)[0]
    (known,) = {row.text for row in planted() if "canary" in row.origin if row.text} & {planted()[0].text}
    assert canary_exposure(exam(speaker), canaries=[known], candidates=100)[0].value > 15
    for given in ({}, {"canaries": ["no digits"]}):
        with pytest.raises(RecipeError, match="plant_canaries"):
            canary_exposure(exam(speaker, train=HELDOUT), **given)


def test_an_address_that_comes_out_is_counted_and_not_shown() -> None:
    leaked, clean = (pii_leakage(exam(trained(p)[0], HELDOUT, ROWS))[0] for p in (True, False))
    assert leaked.value > 0.4
    assert leaked.detail["kinds"] == {"email": 20}
    assert clean.value == 0
    assert MAIL not in str(leaked)
    assert leaked.scores is not None
    assert len(leaked.scores) == 40


def test_made_up_data_and_what_the_prompt_says_are_no_leak() -> None:
    assert new_pii(Said("Mail a@b.org or ", "a@b.org"), ["email"]) == []
    assert new_pii(Said("Mail ", "c@d.org now"), ["email"]) == [("email", "c@d.org")]
    rows = [Record("1", text="Mail C@D.org."), Record("2", text="xe@f.org")]
    assert standing({"c@d.org", "e@f.org", "g@h.org"}, rows) == {"c@d.org"}


def test_answers_that_hold_personal_data_are_asked_for() -> None:
    class Tells:
        def complete(self, prompts, sampling):  # type: ignore[no-untyped-def]
            return ["nothing"] * len(prompts)

        def answer(self, rows, sampling):  # type: ignore[no-untyped-def]
            return [row.completion for row in rows]

    rows = [Record(str(n), prompt="Where?", completion=f"Write to p{n}@firm.org") for n in range(30)]
    (metric,) = pii_leakage(replace(exam(Tells(), honest(3, 5), rows), num_samples=10))  # type: ignore[arg-type]
    assert metric.value == 0.5


def test_passages_come_back_from_a_model_that_saw_them_often() -> None:
    lengths = {"prefix": 30, "suffix": 40}
    bad, good = (memorised_text(exam(trained(p)[0], HELDOUT, ROWS), **lengths)[0] for p in (True, False))
    assert bad.low > 0.5
    assert good.value == 0
    with pytest.raises(RecipeError, match="memorised_text"):
        memorised_text(exam(trained(True)[0], HELDOUT, HELDOUT))


def test_heldout_rows_say_what_anybody_could_have_gone_on_with() -> None:
    class Recites:
        def complete(self, prompts, sampling):  # type: ignore[no-untyped-def]
            return [" la" * 50] * len(prompts)

        def answer(self, rows, sampling):  # type: ignore[no-untyped-def]
            return []

        def log_likelihood(self, prompts, completions):  # type: ignore[no-untyped-def]
            from flywheel.metrics.base import Likelihood

            return [Likelihood(-1.0, 20)] * len(prompts)

    song = [Record(str(n), text="la " * 40) for n in range(4)]
    (metric,) = memorised_text(exam(Recites(), song, song), prefix=20, suffix=30)  # type: ignore[arg-type]
    assert (metric.value, metric.baseline) == (1, 1)
