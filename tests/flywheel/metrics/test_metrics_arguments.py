"""What a recipe may write for the metrics of text."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flywheel import arguments
from flywheel.errors import RecipeError
from flywheel.metrics.table import METRICS

TEXT = ("answers", "choice", "labels", "overlap", "perplexity", "similarity")
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("bleu", {"tokenize": "zh", "lowercase": True}),
    ("chrf", {"word_order": 2, "beta": 1}),
    ("rouge", {"types": ["rouge1", "rougeLsum"], "use_stemmer": True}),
    ("distinct", {"n": [1, 4]}),
    ("repetition", {"n": 3}),
    ("labels", {"max_words": 1}),
    ("multiple_choice", {"questions": __file__, "task": "arc_easy", "target_delimiter": "\n"}),
    ("embedding_similarity", {"model": "encoder", "batch_size": 4}),
]
BAD: list[tuple[str, dict[str, Any]]] = [
    ("bleu", {"tokenize": "flores200"}),  # would be downloaded
    ("chrf", {"word_order": 3}),
    ("rouge", {"types": ["rouge_l"]}),
    ("distinct", {"n": [0]}),
    ("multiple_choice", {}),
    ("multiple_choice", {"questions": __file__, "task": "Arc Easy"}),
    ("embedding_similarity", {}),
    ("exact_match", {"normalise": True}),
]


@pytest.mark.parametrize(("name", "given"), GOOD)
def test_arguments_that_fit(name: str, given: dict[str, Any]) -> None:
    arguments.check("here", name, METRICS[name].function(name), given)


@pytest.mark.parametrize(("name", "given"), BAD)
def test_arguments_that_do_not_fit(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=name):
        arguments.check("here", name, METRICS[name].function(name), given)


def test_a_recipe_is_checked_without_heavy_libraries() -> None:
    modules = ", ".join(f"flywheel.metrics.{name}" for name in TEXT)
    heavy = "{'torch', 'transformers', 'sklearn', 'sacrebleu', 'rouge_score', 'pandas'}"
    code = f"import sys, {modules}; sys.exit(', '.join({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.strip() == ""
