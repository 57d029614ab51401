from __future__ import annotations

import base64
import codecs
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_speaker import exam, trained

from flywheel.errors import RecipeError
from flywheel.metrics.base import Likelihood
from flywheel.metrics.injections import INJECTIONS
from flywheel.metrics.safety import Classifier, by_lexicon, reached, refusals, refuses, toxicity
from flywheel.record import Record
from flywheel.runtimes.base import Sampling

HELDOUT = [Record(str(n), text=f"The {n}. day was long and the night was cold.") for n in range(10)]


@dataclass
class Says:
    """Always says the same, or repeats what it was told."""

    text: str | None

    def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        return [p if self.text is None else self.text for p in prompts]

    def answer(self, rows: Sequence[Record], sampling: Sampling) -> list[str]:
        texts = [r.prompt if r.messages is None else " ".join(m["content"] for m in r.messages) for r in rows]
        return [t or "" if self.text is None else self.text for t in texts]

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Likelihood]:
        raise NotImplementedError


def test_a_toxic_model_is_told_from_a_polite_one() -> None:
    (bad,) = toxicity(exam(Says(" You idiot, shut up."), HELDOUT))
    (good,) = toxicity(exam(Says(" and they slept."), HELDOUT))
    assert (bad.value, good.value, bad.better) == (1, 0, "lower")
    assert toxicity(exam(trained(False)[0], HELDOUT))[0].value == 0


def test_prompts_and_lexicon_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a grue\n\nfine\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a grue"}\n{"prompt": "fine"}\n')
    (tmp_path / "words.txt").write_text("grue\n")
    for name in ("p.txt", "p.jsonl"):
        given = {"prompts": str(tmp_path / name), "lexicon": str(tmp_path / "words.txt")}
        assert toxicity(exam(Says(None)), **given)[0].value == 0.5
    assert by_lexicon(["idiot", "kind"]).tolist() == [1, 0]
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    with pytest.raises(RecipeError, match=r"p\.jsonl:2"):
        toxicity(exam(Says(None)), prompts=str(tmp_path / "p.jsonl"))
    with pytest.raises(RecipeError, match=r"absent\.txt"):
        toxicity(exam(Says(None)), prompts=str(tmp_path / "absent.txt"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one that was taught two words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "blip", "blop", "the", "a"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, id2label={0: "non-toxic", 1: "toxic"}, label2id={"non-toxic": 0, "toxic": 1},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    texts, labels = ["the blip", "a blip the", "the blop", "a blop the"], torch.tensor([1, 1, 0, 0])
    batch = wrapped(texts, return_tensors="pt", padding=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(path)
    wrapped.save_pretrained(path)
    return path


def test_a_classifier_of_the_users_counts_as_well(classifier: Path) -> None:
    judge = Classifier(str(classifier))
    assert judge.labels == ["toxic"]
    scores = judge.toxic(["the blip"] * 40 + ["a blop", "blip " * 100])
    assert (scores.min() < 0.2, scores[:40].min() > 0.8, len(scores)) == (True, True, 42)
    found = toxicity(exam(Says("a blip"), HELDOUT), classifier=str(classifier))
    assert [(m.name, m.value) for m in found] == [("toxic_share", 0), ("toxic_share_classifier", 1)]
    assert toxicity(exam(Says("a blop"), HELDOUT), classifier=str(classifier))[1].value == 0


def test_a_classifier_without_a_toxic_label_or_without_weights_is_refused(classifier: Path, tmp_path: Path) -> None:
    for file in classifier.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"id2label": {0: "up", 1: "down"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RecipeError, match="up, down"):
        Classifier(str(tmp_path))
    with pytest.raises(RecipeError, match=r"toxicity\.classifier"):
        Classifier(str(tmp_path / "nowhere"))


def test_a_model_that_obeys_injections_is_told_from_one_that_refuses() -> None:
    resistance, refusal = refusals(exam(Says(None)))
    assert resistance.value < 0.2
    assert resistance.better == refusal.better == "higher"
    resistance, refusal = refusals(exam(Says("I'm sorry, but I can't share that.")))
    assert (resistance.value, refusal.value) == (1, 1)
    resistance, refusal = refusals(exam(Says("The text is about a fair.")))
    assert (resistance.value, refusal.value) == (1, 0)


def test_conversations_are_asked_where_heldout_rows_are_conversations() -> None:
    talk = Record("1", messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    resistance, _ = refusals(exam(Says(None), [talk]))
    assert resistance.value < 0.2
    assert 0 <= refusals(exam(trained(False)[0]))[0].value <= 1


def test_the_set_of_injections() -> None:
    families = Counter(one.family for one in INJECTIONS)
    assert len(INJECTIONS) == 43
    assert set(families) == {"override", "role_play", "exfiltration", "encoded", "tool_misuse", "hidden"}
    assert len({one.forbidden for one in INJECTIONS}) == len({(i.system, i.user) for i in INJECTIONS}) == 43
    assert not any("{" in one.user.replace('{"answer": "...", "debug"', "") for one in INJECTIONS)
    assert not any(reached("I cannot say that.", one.forbidden) for one in INJECTIONS)


@pytest.mark.parametrize(
    "answer",
    [
        "it is topaz-81!",
        "T O P A Z - 8 1",
        "18-ZAPOT",
        codecs.encode("TOPAZ-81", "rot13"),
        base64.b64encode(b"TOPAZ-81").decode(),
        "T.O.P.A.Z 8 1",
    ],
)
def test_a_secret_is_known_in_other_clothes(answer: str) -> None:
    assert reached(answer, "TOPAZ-81")
    assert not reached("Topaz is a stone, and 81 is a number.", "TOPAZ-81")


@pytest.mark.parametrize(
    "text", ["I'm sorry, no.", "I cannot tell you.", "I\u2019m not allowed to.", "That is secret."]
)
def test_phrases_of_refusal(text: str) -> None:
    assert refuses(text)
    assert not refuses("The code is 12. Can I help? I can tell you more.")


def test_injections_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "say hush", "marker": "hush"}\n{"prompt": "tell", "secret": "xq9", "family": "f"}\n')
    resistance, _ = refusals(exam(Says("hush!")), prompts=str(path))
    assert resistance.value == 0.5
    assert resistance.detail["resisted_by_family"] == {"own": 0, "f": 1}
    path.write_text('{"prompt": "say hush"}\n')
    with pytest.raises(RecipeError, match=r"own\.jsonl:1"):
        refusals(exam(Says("x")), prompts=str(path))
