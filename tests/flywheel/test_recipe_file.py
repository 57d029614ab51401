from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flywheel.errors import RecipeError
from flywheel.recipe import Recipe
from flywheel.recipe_file import load, resolve
from tests.recipes import code_recipe, write


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write(tmp_path / "r.yaml", code_recipe(tmp_path))


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return str(caught.value)


def test_a_recipe_is_read_with_overrides(recipe: Path) -> None:
    assert load(recipe, ["train.max_steps=7", "data.sources.0.license=BSD"]).train.max_steps == 7


def test_an_unknown_key_names_file_line_key_and_the_nearest_key(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", code_recipe(tmp_path, train={"max_step": 3}))
    text, line = refusal(path), path.read_text().splitlines().index("  max_step: 3") + 1
    assert f"r.yaml:{line}: train.max_step" in text
    assert "unknown key `max_step`" in text
    assert "did you mean `max_steps`?" in text


def test_a_wrong_type_says_what_was_found_and_expected(recipe: Path) -> None:
    text = refusal(recipe, "train.learning_rate=fast")
    assert "'fast' (str)" in text
    assert "a valid number" in text


def test_a_value_out_of_range_says_the_range(recipe: Path) -> None:
    assert "greater than or equal to 1" in refusal(recipe, "train.max_steps=0")


def test_keys_inside_a_union_are_explained_too(recipe: Path) -> None:
    text = refusal(recipe, "data.sources.0.pat=x")
    assert "unknown key `pat`" in text
    assert "did you mean `path`?" in text
    assert "too_short" not in text


def test_an_unknown_modality_names_the_nearest(recipe: Path) -> None:
    assert "did you mean `code`?" in refusal(recipe, "model.modality=cod")


def test_all_mistakes_are_told_at_once(recipe: Path) -> None:
    text = refusal(recipe, "train.max_steps=0", "seed=-1", "nonsense=1")
    assert text.count("found:") == 3


def test_a_metric_that_the_modality_does_not_measure_is_refused_before_anything_runs(recipe: Path) -> None:
    text = refusal(recipe, "objective.thresholds.parse_rat={min: 0.5}")
    assert "did you mean `parse_rate`?" in text


def test_an_unknown_operation_is_refused_before_anything_runs(recipe: Path) -> None:
    assert "exact_dedup" in refusal(recipe, "data.process=[exact_dedupe]")


def test_a_doubled_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: a\nname: b\n")
    assert "r.yaml:2: name" in refusal(path)


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    assert "alias" in refusal(path)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\x00", "a: !!python/object:os.system {}", "[" * 5000])
def test_what_is_no_recipe_is_refused_with_a_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert "r.yaml" in refusal(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_yaml_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("any") / "r.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(RecipeError):
        load(path)


def test_a_written_out_recipe_is_resolved_as_a_file_is(recipe: Path) -> None:
    written = Recipe.model_validate(yaml.safe_load(recipe.read_text()))
    assert resolve(written, ["seed=3"]) == resolve(recipe, ["seed=3"])


def test_every_recipe_of_the_project_is_valid() -> None:
    for path in sorted(Path("recipes").glob("*.yaml")):
        assert load(path).name == path.stem


def test_an_expectation_without_arguments_is_its_name(recipe: Path) -> None:
    found = load(recipe, ["data.validate.expectations=[expect_no_train_heldout_leakage]"])
    assert found.data.validate_.expectations == ({"expect_no_train_heldout_leakage": {}},)


def test_an_operation_that_is_wrong_has_a_line(recipe: Path) -> None:
    assert re.search(r"\.yaml:\d+: data\.process\[0\]: operation", refusal(recipe, "data.process=[exact_dedupe]"))


def test_heads_that_cannot_be_exported_are_refused(recipe: Path) -> None:
    assert "multiple of 16" in refusal(recipe, "model.num_attention_heads=4", "model.num_key_value_heads=4")


def test_an_unknown_method_is_answered_with_all_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", code_recipe(tmp_path, train={"method": "pretrian"}))
    text, line = refusal(path), path.read_text().splitlines().index("  method: pretrian") + 1
    assert f"r.yaml:{line}: train.method" in text
    assert "one of pretrain, sft, dpo, kto, orpo, reward, grpo, distill" in text
    assert "did you mean `pretrain`?" in text


def test_keys_of_a_method_are_those_of_its_own(recipe: Path) -> None:
    text = refusal(recipe, "finetune.process=[]", "train.method=dpo", "train.replay=0.1")
    assert "unknown key `replay`" in text
    assert "beta" in text
    assert "num_generations" not in text


def test_a_method_must_fit_the_modality(recipe: Path) -> None:
    text = refusal(recipe, "train.method=reward")
    assert "train.method" in text
    assert "sft, pretrain, dpo, kto, orpo, grpo, distill (code)" in text


@pytest.mark.parametrize("override", ["train.replay=0.1", "train.process=[docstring_pairs]"])
def test_the_first_stage_has_no_rows_of_another(recipe: Path, override: str) -> None:
    assert "it under `finetune` alone" in refusal(recipe, override)
