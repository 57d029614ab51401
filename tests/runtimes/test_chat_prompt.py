"""A served model is asked with the template and the token ids that it was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flywheel.errors import ServingError
from flywheel.runtimes.chat import open_template

TALK = [{"role": "user", "content": "Hi <|e|>"}]
TEMPLATE: dict[str, Any] = {
    "source": "{{ bos }}{% for m in messages %}{{ m.content + '<|e|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '>' }}{% endif %}",
    "variables": {"bos": "<|e|>"},
    "special": ["<|e|>"],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate("Hi<|e>Ġ")}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken("<|e|>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_only_the_template_writes_special_tokens(bundle: Path) -> None:
    from tokenizers import Tokenizer

    chat, tokenizer = open_template(bundle, TEMPLATE), Tokenizer.from_file(str(bundle / "tokenizer.json"))
    prompt = chat.prompt(TALK)
    assert chat.wrote(prompt)
    assert not chat.wrote("Hi")
    ids = chat.encode(tokenizer, prompt)
    end = tokenizer.token_to_id("<|e|>")
    assert [i for i, token in enumerate(ids) if token == end] == [0, len(ids) - 2]
    assert tokenizer.decode(ids[1:-2], skip_special_tokens=False).replace(" ", "") == "HiĠ<|e|>"


def test_messages_that_the_template_refuses(bundle: Path) -> None:
    chat = open_template(bundle, {**TEMPLATE, "source": "{{ raise_exception('not so') }}"})
    with pytest.raises(ValueError, match="not so"):
        chat.prompt(TALK)


def test_a_bundle_with_a_broken_template_is_refused(bundle: Path) -> None:
    with pytest.raises(ServingError, match="chat_template"):
        open_template(bundle, {**TEMPLATE, "source": "{% for"})
