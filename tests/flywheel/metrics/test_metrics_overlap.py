from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from flywheel.comparison import compare
from flywheel.metrics.metric import Metric
from flywheel.metrics.overlap import (
    ROUGE,
    RougeType,
    bleu,
    bleu_of,
    chrf,
    chrf_of,
    corpus_bleu,
    corpus_chrf,
    rouge,
    rouge_l,
    rouge_scores,
)
from flywheel.metrics.scores import draws
from tests.flywheel.metrics.scripted import exam_of

REFERENCES = ["the cat sat on the mat", "a dog barked at the moon", "rain fell all night long"]
ANSWERS = ["the cat sat on a mat", "a dog barked at the sun", "rain fell all day"]
CASES = {
    "english": (ANSWERS, REFERENCES),
    "equal": (REFERENCES, REFERENCES),
    "nothing in common": (["x", "y", "z"], REFERENCES),
    "no phrase in common": (["Return a string."] * 3, ["Return the first string of all."] * 3),
    "short": (["yes", "no"], ["yes", "yes"]),
    "empty answers": (["", "", ""], REFERENCES),
    "some empty": (["", "a dog", "rain fell all night long and all day"], REFERENCES),
    "empty references": (["something", "the cat sat on the mat"], ["", "the cat sat on the mat"]),
    "longer": ([f"{r} and then some more of it" for r in REFERENCES], REFERENCES),
    "other scripts": (
        ["Größe, naïveté ☃", "我们去看电影", "Быстрая лиса"],
        ["Größe und ☃", "我们看电影", "Быстрая рыжая лиса"],
    ),
    "tokenised": (["A test , it was ."] * 120, ["A test, it was."] * 120),
}
TEXT = st.text(alphabet="ab .,é我☃\n", max_size=30)
PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", [{}, {"tokenize": "intl"}, {"tokenize": "char"}, {"lowercase": True}])
def test_bleu_is_sacrebleus(case: str, options: dict[str, Any]) -> None:
    answers, references = CASES[case]
    theirs = BLEU(force=True, **options)
    metric = corpus_bleu("bleu", answers, references, 0, **options)
    assert f"{metric.value:.10f}" == f"{theirs.corpus_score(answers, [references]).score:.10f}"
    assert metric.detail == {"signature": str(theirs.get_signature()), "examples": len(answers)}
    assert metric.low - 1e-9 <= metric.value <= metric.high + 1e-9


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", [{}, {"word_order": 1}, {"word_order": 2}, {"beta": 3}])
def test_chrf_is_sacrebleus(case: str, options: dict[str, int]) -> None:
    answers, references = CASES[case]
    theirs = CHRF(**options)
    metric = corpus_chrf("chrf", answers, references, 0, **options)
    assert f"{metric.value:.10f}" == f"{theirs.corpus_score(answers, [references]).score:.10f}"
    assert metric.detail["signature"] == str(theirs.get_signature())


@pytest.mark.parametrize(
    ("answers", "references", "expected"),
    [  # sacrebleu 2.6, test/test_chrf.py: test_cases_effective_order, beta 3
        (["a"], ["a"], 100.0),
        ([""], ["reference"], 0.0),
        (["a b c"], ["a b c"], 100.0),
        (["a b c"], ["abc"], 100.0),
        ([""], ["c"], 0.0),
        (["a", "b"], ["a", "c"], 50.0),
        (["aa"], ["ab"], 25.0),
    ],
)
def test_chrf_of_sacrebleus_own_tests(answers: list[str], references: list[str], expected: float) -> None:
    assert corpus_chrf("chrf", answers, references, 0, beta=3).value == pytest.approx(expected, abs=1e-4)


def test_bleu_of_sacrebleus_own_tests() -> None:
    # sacrebleu 2.6, test/test_bleu.py: test_case_scoring, and test_case_effective_order with its default smoothing
    parts = np.array([[11, 11, 9, 7, 5, 3, 10, 8, 6, 4]], dtype=np.float64)
    assert bleu_of(parts, np.ones((1, 1)))[0] / 100 == pytest.approx(0.8375922397, abs=1e-8)
    assert corpus_bleu("b", ["this is a test"], ["this is a test"], 0).value == pytest.approx(100)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_all_resamples_at_once_are_those_of_sacrebleu_one_by_one(texts: list[tuple[str, str]]) -> None:
    answers, references = [a for a, _ in texts], [r for _, r in texts]
    weights = draws(len(texts), 5, seed=1)
    for theirs, ours in (
        (BLEU(force=True), corpus_bleu("b", answers, references, 0)),
        (CHRF(word_order=2), corpus_chrf("c", answers, references, 0, word_order=2)),
    ):
        assert ours.scores is not None
        for row, found in zip(weights, ours.scores.values(weights), strict=True):
            picks = np.repeat(np.arange(len(texts)), row.astype(int))
            expected = theirs.corpus_score([answers[i] for i in picks], [[references[i] for i in picks]]).score
            assert found == pytest.approx(expected, abs=1e-9)


def test_statistics_alone_give_the_score() -> None:
    one = np.ones((1, 3))
    found = corpus_bleu("b", ANSWERS, REFERENCES, 0)
    assert found.scores is not None
    assert bleu_of(found.scores.parts, one)[0] == found.value
    found = corpus_chrf("c", ANSWERS, REFERENCES, 0)
    assert found.scores is not None
    assert chrf_of(found.scores.parts, one, found.scores.fixed)[0] == found.value


@pytest.mark.parametrize("measure", [corpus_bleu, corpus_chrf])
def test_two_models_are_compared_on_corpus_scores(measure: Any) -> None:
    references = [f"row {i} of the table has {i * 7} cells in it" for i in range(40)]
    better, worse = (
        measure("m", [r.replace(*change) for r in references], references, 0)
        for change in (("table", "chart"), ("of the table", "in a big chart"))
    )
    found = compare("m", "higher", (better.scores, worse.scores), 0.01, seed=0)
    assert found.gain == pytest.approx(better.value - worse.value)
    assert found.p_better < 0.001
    assert compare("m", "higher", (worse.scores, worse.scores), 0.01, seed=0).p_better == 1


def test_chrf_of_other_orders_is_not_compared() -> None:
    plain, words = (corpus_chrf("c", ANSWERS, REFERENCES, 0, order).scores for order in (0, 2))
    assert plain is not None
    assert words is not None
    with pytest.raises(ValueError, match="other references"):
        compare("c", "higher", (plain, words), 0.01, seed=0)


# Texts and scores of ROUGE-1.5.5, from rouge-score 0.1.2: testdata/target.txt, testdata/prediction.txt and
# rouge_scorer_test.py, testRouge{1,2,L}AgainstRouge155 and testRouge1AgainstRouge155WithStemming.
TARGETS = [
    "ZfbCUIUuePaiLVUlCaUXxkpu XPeWing tUHfPMuZ',-Xd Y BrUgVJing M-HV.-DgdDaY.rFDJCRing Ht-LM EKBDXkME,yz'RBr q'wtion "
    "wIojNbN wL,b .a-'XdQggyFl jB-RPP'iyOIcUxer tKM L",
    "KsJdPByEtAor fE-Qg Dpdbring cw-WeFyu vC MoBL Xdn g wkvcEiGvKtion BDFhrpMtion psing sbKao Q m qiing LMmer "
    "HqqLFXe,XPY,J XsurkMer ,ed nB'wH'bWVHjWFEing tQ.saefZwJtKrTlixYpMMsJing UCAPwNHeYVjDing c T BUySKtion gMPfJpwGw "
    "p'NvxAoping eu pBwMBKV'I DNxqelhu,PHPxDEq,mtion SN",
]
PREDICTIONS = [
    "rFDJCRtion Ht-LM EKtDXkME,yz'RBr q'wer wrojNbN wL,b .a-'XdQggyFl jB-RPP'iyOIcUxi",
    "n cw-WeFyu vC MoBL Xdn g wkvcEiGvKtion BDFhrpMer pstion sbKao Q m qier LMmed HqqLFXe,XPY,J XsurkMeo ,ed "
    "nB'wH'bWVHjWFEer tQ.saefZwJtKrTlixYpMMNJtion UCAPwNHeYVjD",
]


@pytest.mark.parametrize(
    ("kind", "use_stemmer", "expected"),
    [
        ("rouge1", False, (0.51163, 0.50000)),
        ("rouge2", False, (0.39024, 0.36364)),
        ("rougeL", False, (0.51163, 0.50000)),
        ("rouge1", True, (0.51163, 0.52941)),
        ("rouge2", True, (0.39024, 0.36364)),
    ],
)
def test_rouge_is_that_of_rouge_1_5_5(kind: RougeType, use_stemmer: bool, expected: tuple[float, float]) -> None:
    (metric,) = rouge_scores({kind: "r"}, PREDICTIONS, TARGETS, 0, use_stemmer)
    assert metric.scores is not None
    assert metric.scores.parts[:, 0] == pytest.approx(expected, abs=5e-6)


def test_rouge_lsum_takes_lines_for_sentences() -> None:
    # rouge-score 0.1.2, rouge_scorer_test.py: testRougeLsum and testRougeLSumSentenceSplitting
    def lsum(prediction: str, target: str, use_stemmer: bool) -> float:
        return rouge_scores({"rougeLsum": "r"}, [prediction], [target], 0, use_stemmer)[0].value

    assert lsum("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", False) == pytest.approx(0.5333, abs=5e-4)
    assert lsum("Second sentence.\nFirst Sentence.", "First sentence.\nSecond Sentence.", True) == 1
    assert lsum("Second sentence. First Sentence.", "First sentence. Second Sentence.", True) == 0.5


@pytest.mark.parametrize("case", ["english", "equal", "empty answers", "some empty", "other scripts"])
def test_rouge_is_rouge_scores(case: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    answers, references = CASES[case]
    scorer = RougeScorer(list(ROUGE))
    theirs = [scorer.score(r, a) for a, r in zip(answers, references, strict=True)]
    for kind, metric in zip(ROUGE, rouge_scores(ROUGE, answers, references, 0), strict=True):
        assert metric.value == pytest.approx(np.mean([s[kind].fmeasure for s in theirs]), abs=1e-12)


def test_rouge_l_is_the_mean_f_measure() -> None:
    answers = ["the cat sat on the mat", "a dog", "nothing"]
    metric = rouge_l("answer_rouge_l", answers, REFERENCES, seed=0)
    assert metric.value == pytest.approx((1 + 2 * (2 / 2) * (2 / 6) / (2 / 2 + 2 / 6)) / 3)
    assert metric.low <= metric.value <= metric.high


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_any_texts_have_scores_in_range(texts: list[tuple[str, str]]) -> None:
    answers, references = [a for a, _ in texts], [r for _, r in texts]
    for metric in rouge_scores(ROUGE, answers, references, 0):
        assert 0 <= metric.low <= metric.high <= 1
    for metric in (corpus_bleu("b", answers, references, 0), corpus_chrf("c", answers, references, 0)):
        assert 0 <= metric.low <= metric.high <= 100 + 1e-9


def test_what_a_recipe_names() -> None:
    asked = exam_of(ANSWERS, REFERENCES)
    found: list[Metric] = [*bleu(asked), *chrf(asked), *chrf(asked, word_order=2), *rouge(asked, types=["rougeLsum"])]
    assert [m.name for m in found] == ["bleu", "chrf", "chrf_plus_plus", "rouge_lsum"]
    assert [m.unit for m in found] == ["points of 100"] * 3 + ["share"]
    assert found[0].value == pytest.approx(sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score, abs=1e-9)
    assert len(rouge(asked)) == 4
