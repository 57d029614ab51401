import json
import re

import pytest

from flywheel.errors import RecipeError
from flywheel.process.augment import back_translation, random_deletion, random_swap, synonym_replacement
from flywheel.record import Record, content, provenance_id

TEXT = "The quick brown fox didn't jump over the lazy dog.\nIt slept, for once, in the warm sun all day long!"
SYNONYMS = {"quick": ["fast", "rapid"], "slept": ["dozed"], "Warm": ["hot"], "it": ["that"], "sun": []}


def row(text=TEXT, label="fable"):
    origin = {"source": "s", "path": "p.txt", "license": "CC0-1.0", "group": "g"}
    return Record(provenance_id("s", text, b""), text=text, label=label, origin=origin)


ROWS = [row(), row("One two three four five six seven eight nine ten."), row("a b c d e f g h")]
VARIED = {
    "synonym_replacement": lambda rows, **options: synonym_replacement(rows, SYNONYMS, **options),
    "random_swap": random_swap,
    "random_deletion": random_deletion,
}


def words(text):
    return re.findall(r"[\w']+", text)


@pytest.mark.parametrize("operation", VARIED.values(), ids=VARIED)
def test_copies_depend_on_their_row_and_the_seed_alone(operation):
    together = list(operation(ROWS, copies=3, probability=0.3, seed=7))
    apart = [copy for one in reversed(ROWS) for copy in operation([one], copies=3, probability=0.3, seed=7)]
    assert sorted(together, key=lambda r: r.id) == sorted(apart, key=lambda r: r.id)
    assert together != list(operation(ROWS, copies=3, probability=0.3, seed=8))
    assert next(iter(operation(ROWS, probability=0.3, seed=7))) == together[0]


@pytest.mark.parametrize(("name", "operation"), VARIED.items(), ids=VARIED)
def test_copies_are_new_rows_that_name_their_parent_and_keep_its_label_and_group(name, operation):
    found = list(operation([row()], copies=4, probability=0.4))
    assert found
    assert len({copy.id for copy in found} | {row().id}) == len({content(copy) for copy in [*found, row()]})
    for copy in found:
        assert copy.label == "fable"
        assert copy.origin == {**row().origin, "augmented": name, "parent": row().id}


def test_synonyms_keep_case_and_punctuation():
    (copy,) = synonym_replacement([row()], SYNONYMS, probability=1.0)
    assert re.fullmatch(
        r"The (fast|rapid) brown fox didn't jump over the lazy dog\.\n"
        r"That dozed, for once, in the hot sun all day long!",
        copy.text,
    )
    (copy,) = synonym_replacement([row("QUICK, quick")], {"quick": ["fast"]}, probability=1.0)
    assert copy.text == "FAST, fast"


def test_a_text_without_a_known_word_gives_no_copy_and_one_with_gives_one_at_least():
    assert not list(synonym_replacement([row("nothing known here")], SYNONYMS, copies=5))
    assert len(list(synonym_replacement([row("a quick one")], {"quick": ["fast"]}, copies=5, probability=0.001))) == 1


@pytest.mark.parametrize("name", ["synonyms.json", "synonyms.txt"])
def test_synonyms_come_from_a_file_of_the_user(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps({"lazy": ["idle"]}) if name.endswith("json") else "lazy, idle\n\n")
    (copy,) = synonym_replacement([row()], str(path))
    assert copy.text == TEXT.replace("lazy", "idle")


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": "b"}', '{"a": [1]}', None])
def test_a_file_that_holds_no_synonyms_is_an_error_of_the_recipe(tmp_path, text):
    path = tmp_path / "synonyms.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=r"synonyms\.json"):
        list(synonym_replacement([row()], str(path)))


def test_swaps_move_words_and_leave_punctuation():
    (copy,) = random_swap([row()], probability=0.05)
    assert sorted(words(copy.text)) == sorted(words(TEXT))
    assert sum(a != b for a, b in zip(words(copy.text), words(TEXT), strict=True)) == 2
    assert re.sub(r"[\w']+", "", copy.text) == re.sub(r"[\w']+", "", TEXT)
    assert not list(random_swap([row("word")]))


def test_deletions_leave_out_about_that_share_of_words_in_order():
    text = " ".join(f"w{number}" for number in range(2_000))
    (copy,) = random_deletion([row(text)], probability=0.2)
    left = [int(word[1:]) for word in copy.text.split(" ")]
    assert 1_500 < len(left) < 1_700
    assert left == sorted(left)
    indented = [copy.text.split("\n") for copy in random_deletion([row("a b c\n  d e f")], copies=20, probability=0.5)]
    assert {(len(lines), lines[0][:1] == " ", lines[1][:2]) for lines in indented} == {(2, False, "  ")}
    assert [c.text for c in random_deletion([row("one two")], copies=9, probability=1.0)] in (
        ["one", "two"],
        ["two", "one"],
    )


def test_prompts_and_users_turns_are_varied_and_answers_are_not():
    pair = Record("a", prompt=TEXT, completion=TEXT)
    talk = Record("b", messages=[{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}])
    for copy in random_swap([pair, talk, Record("c", image=b"x")], probability=0.5):
        if copy.prompt:
            assert (copy.prompt != TEXT, copy.completion) == (True, TEXT)
        else:
            assert [m["content"] == TEXT for m in copy.messages] == [False, True]
    assert len(list(random_swap([pair, talk, Record("c", image=b"x")], probability=0.5))) == 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *words(TEXT)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("checkpoint")
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
    config = T5Config(**shape, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(path)
    return str(path)


def test_back_translation_runs_two_checkpoints_and_does_not_look_at_other_rows(checkpoint):
    rows = [row("It slept. The fox slept!\nOver the dog."), row("The lazy dog.")]
    both = list(back_translation(rows, checkpoint, checkpoint, copies=2, seed=1))
    alone = list(back_translation(rows[1:], checkpoint, checkpoint, copies=2, seed=1))
    assert len(both) == 4
    assert both[2:] == alone
    assert both[0].text.count("\n") >= 1
    assert both[0].text != both[1].text
    assert both[0].origin["augmented"] == "back_translation"
    assert list(back_translation([row("..."), row("")], checkpoint, checkpoint)) == []


def test_back_translation_leaves_the_random_state_of_others_alone(checkpoint):
    import torch

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(back_translation([row("The dog.")], checkpoint, checkpoint))
    assert torch.rand(1) == expected


def test_a_directory_without_a_checkpoint_is_an_error_of_the_recipe(checkpoint, tmp_path):
    for path in (str(tmp_path), "someone/some-model-on-a-hub"):
        with pytest.raises(RecipeError, match=r"back_translation\.backward"):
            list(back_translation([row()], checkpoint, path))
