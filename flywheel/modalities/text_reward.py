"""A reward model: any `AutoModelForSequenceClassification` with one label, also on top of a language model, or a small
decoder from scratch. It learns which of two answers people prefer (Bradley & Terry 1952).

What is scored is one text: `prompt <|answer|> answer` (an empty line where the tokenizer does not know the token), an
answer alone where there is no prompt, or a conversation by the tokenizer's chat template. It is tokenised as a server
and TRL do: special tokens in it are special. A saved model is what TRL's GRPO takes as a reward model's path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification

from flywheel.methods import dialogue
from flywheel.metrics.examples import spread
from flywheel.metrics.metric import Metric, bootstrap_mean
from flywheel.modalities import chat, decoder_model, single_pass_model
from flywheel.modalities.base import Export, Model
from flywheel.modalities.single_pass_model import context
from flywheel.modalities.text_causal import text_facts
from flywheel.modalities.token_rows import Ids, shorten
from flywheel.recipe import Evaluate, Generation, Recipe
from flywheel.recipe_models import TextRewardModel
from flywheel.record import LeftOut, Messages, Record, drop, texts
from flywheel.runtimes.base import Predictor
from flywheel.runtimes.single_pass import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHAT = "a language model or a classifier with one label"


@dataclass(frozen=True)
class Pair:
    """A row's two answers, each with what it answers."""

    row: Record
    chosen: Ids
    rejected: Ids


class Pairs(Dataset[Mapping[str, Any]]):
    """`input_ids` and `attention_mask` (2, max_length): chosen, then rejected, padded on the right."""

    def __init__(self, pairs: Sequence[Pair], max_length: int, pad: int, left_out: Sequence[LeftOut]) -> None:
        self.input_ids = np.full((len(pairs), 2, max_length), pad, dtype=np.int32)
        self.attention_mask = np.zeros_like(self.input_ids)
        for row, pair in enumerate(pairs):
            for side, ids in enumerate((pair.chosen, pair.rejected)):
                self.input_ids[row, side, : len(ids)], self.attention_mask[row, side, : len(ids)] = ids, 1
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        arrays = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return {name: torch.as_tensor(array[index], dtype=torch.long) for name, array in arrays.items()}


class TextReward:
    """The room of preferences. Rows carry `chosen` and `rejected`, and `prompt` or `messages` where there are any."""

    def __init__(self, center_rewards_coefficient: float | None = None) -> None:
        self._center = center_rewards_coefficient or 0.0

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        """As those of plain text, of all texts of the row."""
        return text_facts("\n".join(texts(record)))

    def build(self, recipe: Recipe, rows: Sequence[Record]) -> Model:
        """From `recipe.model.path`, or from scratch: the same rows and recipe give the same weights. The head of a
        language model is drawn with the seed."""
        config = cast(TextRewardModel, recipe.model)
        if config.path is not None:
            return _opened(config.path, recipe.seed)
        tokenizer = decoder_model.train_tokenizer([text for row in rows for text in texts(row)], config)
        architecture = decoder_model.architecture_of(config, len(tokenizer), tokenizer.eos_token_id)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            return _ready(Model(_module(architecture), tokenizer))

    def outline(self, recipe: Recipe, max_length: int) -> tuple[nn.Module, Mapping[str, Any]]:
        """The module without weights, and a pair without padding."""
        config = cast(TextRewardModel, recipe.model)
        if config.path is None:
            architecture = decoder_model.architecture_of(config, config.tokenizer.vocab_size, 0)
        else:
            architecture = single_pass_model.config_of(config.path, _WHAT)
        module = _module(architecture)
        _text_config(module).pad_token_id = 0
        ids = torch.ones(2, max_length, dtype=torch.long)
        return module, {"input_ids": ids, "attention_mask": ids}

    def encode(
        self, model: Model, rows: Sequence[Record], max_length: int, whole: bool = False
    ) -> Dataset[Mapping[str, Any]]:
        """One feature for each pair. Rows that are no preference, and those with a side of more than `max_length`
        tokens (`too_long`), are in `left_out`."""
        single_pass_model.check_length(model, max_length)
        found, left_out = pairs(model, rows)
        kept = []
        for pair in found:
            longest = max(len(pair.chosen), len(pair.rejected))
            if longest <= max_length:
                kept.append(pair)
            else:
                left_out.append(drop(pair.row, "too_long", f"{longest} tokens, {max_length} are allowed"))
        return Pairs(kept, max_length, model.processor.pad_token_id, left_out)

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack features into tensors (batch, 2, max_length)."""
        return {name: torch.stack([f[name] for f in features]) for name in features[0]}

    def losses(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """-log sigmoid(chosen - rejected), in nats per pair; `center_rewards_coefficient` times the squared sum of the
        two is added (Eisenstein et al. 2023)."""
        inputs = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
        chosen, rejected = module(**inputs).logits.float().view(-1, 2).unbind(1)
        held = self._center * (chosen + rejected).square()
        return {"": (held - F.logsigmoid(chosen - rejected)).mean()}

    def save(self, model: Model, directory: Path) -> None:
        """Hub layout: model.safetensors, config.json, tokenizer.json, tokenizer_config.json with the chat template."""
        single_pass_model.save(model, directory)

    def load(self, directory: Path) -> Model:
        """Read back what `save` wrote."""
        return _opened(str(directory), 0)

    def predictor(self, model: Model) -> Scorer:
        """The torch reference, on the GPU where there is one. It also offers `scores`."""
        return Scorer(single_pass_model.torch_pass(model), _manifest(model))

    def prompts(self, model: Model, rows: Sequence[Record], count: int) -> list[Any]:
        """At most `count` chosen texts as token ids."""
        return [shorten(pair.chosen, context(model)) for pair in pairs(model, spread(_usable(rows), count))[0]]

    def evaluate(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """`preference_accuracy`, the share of pairs whose chosen side scores higher (a tie is half), and
        `preference_bits`, the cross-entropy in bits (1 is a coin). Texts longer than the context are shortened."""
        found = pairs(model, rows)[0]
        if not found:
            return []
        sides = [shorten(ids, context(model)) for pair in found for ids in (pair.chosen, pair.rejected)]
        chosen, rejected = cast(Scorer, predictor).scores(sides).reshape(-1, 2).T
        return [
            bootstrap_mean("preference_accuracy", "higher", _wins(chosen, rejected), seed),
            bootstrap_mean("preference_bits", "lower", np.logaddexp(0, rejected - chosen) / log(2), seed),
        ]

    def baselines(self, model: Model, train: Sequence[Record], heldout: Sequence[Record]) -> dict[str, float]:
        """The longer answer wins."""
        answers = [preference(row).answers for row in _usable(heldout)]
        if not answers:
            return {}
        sizes = np.array([[len(dialogue.plain_text(answer)) for answer in sides] for sides in answers])
        return {"preference_accuracy": float(_wins(sizes[:, 0], sizes[:, 1]).mean())}

    def samples(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], generation: Generation, seed: int
    ) -> list[dict[str, str]]:
        """Both sides of up to four pairs with their scores."""
        scorer, found = cast(Scorer, predictor), []
        for pair in pairs(model, spread(_usable(rows), 4))[0]:
            sides = {"chosen": pair.chosen, "rejected": pair.rejected}
            scores = scorer.scores([shorten(ids, context(model)) for ids in sides.values()])
            shown = {name: model.processor.decode(ids) for name, ids in sides.items()}
            told = {f"{name}_score": f"{score:.4f}" for name, score in zip(sides, scores, strict=True)}
            found.append({**shown, **told})
        return found

    def export(self, model: Model, directory: Path) -> Export:
        """One graph, and tokenizer.json."""
        single_pass_model.save_tokenizer(model, directory)
        return Export({"model": single_pass_model.graph(model)}, _manifest(model))


def preference(row: Record) -> dialogue.Asked:
    """The two sides of a row; the prompt is "" where there is none. Raises dialogue.Unusable: `missing_column`,
    `empty`, `equal_sides`, `no_user_turn`, `no_answer`."""
    if isinstance(row.chosen, str) and isinstance(row.rejected, str) and row.prompt is None and row.messages is None:
        alone = dialogue.preference(row.with_fields(prompt="none"))
        return dialogue.Asked("", alone.answers, alone.labels)
    return dialogue.preference(row)


def pairs(model: Model, rows: Sequence[Record]) -> tuple[list[Pair], list[LeftOut]]:
    """The token ids of all rows that are preferences, and the rows that are none."""
    left_out: list[LeftOut] = []
    read: list[tuple[Record, dialogue.Asked]] = []
    for row in rows:
        try:
            read.append((row, preference(row)))
        except dialogue.Unusable as reason:
            left_out.append(drop(row, str(reason)))
    plain = _plain(model, [asked for _, asked in read if isinstance(asked.prompt, str)])
    talks = _talks(model, [asked for _, asked in read if not isinstance(asked.prompt, str)])
    found = []
    for row, asked in read:
        chosen, rejected = (next(plain if isinstance(asked.prompt, str) else talks) for _ in asked.answers)
        if isinstance(chosen, chat.Refused) or isinstance(rejected, chat.Refused):
            refused = chosen if isinstance(chosen, chat.Refused) else cast(chat.Refused, rejected)
            left_out.append(drop(row, refused.reason, refused.detail))
        else:
            found.append(Pair(row, chosen, rejected))
    return found, left_out


def sides(model: Model, asked: Sequence[dialogue.Asked]) -> list[Ids | chat.Refused]:
    """The token ids of every answer with its question, one after the other."""
    plain = _plain(model, [one for one in asked if isinstance(one.prompt, str)])
    talks = _talks(model, [one for one in asked if not isinstance(one.prompt, str)])
    return [next(plain if isinstance(one.prompt, str) else talks) for one in asked for _ in one.answers]


def _plain(model: Model, asked: Sequence[dialogue.Asked]) -> Iterator[Ids | chat.Refused]:
    """Token ids of prompt and answer as one text, chosen and rejected in turns."""
    separator, tokenizer = decoder_model.separator_text(model), model.processor.backend_tokenizer
    tokenizer.encode_special_tokens = False
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found = [f"{one.prompt}{separator if one.prompt else ''}{answer}" for one in asked for answer in one.answers]
    for start in range(0, len(found), 256):
        for encoding in tokenizer.encode_batch_fast(found[start : start + 256]):
            yield np.array(encoding.ids, dtype=np.int64)


def _talks(model: Model, asked: Sequence[dialogue.Asked]) -> Iterator[Ids | chat.Refused]:
    """Token ids of conversations, chosen and rejected in turns."""
    rows = [
        Record("", messages=[*cast(Messages, one.prompt), *cast(Messages, answer)])
        for one in asked
        for answer in one.answers
    ]
    for said in chat.whole(model, rows) if rows else ():
        yield said if isinstance(said, chat.Refused) else said[0].ids


def _usable(rows: Sequence[Record]) -> list[Record]:
    return [row for row in rows if not dialogue.fault(preference, row)]


def _wins(chosen: NDArray[Any], rejected: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(chosen == rejected, 0.5, (chosen > rejected).astype(np.float64))


def _opened(path: str, seed: int) -> Model:
    auto = AutoModelForSequenceClassification
    return _ready(single_pass_model.open_checkpoint(path, auto, _WHAT, seed, num_labels=1))


def _module(architecture: Any) -> nn.Module:
    architecture.num_labels = 1
    module: nn.Module = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
        architecture, dtype=torch.float32, trust_remote_code=False, attn_implementation=decoder_model.attention()
    )
    return module


def _ready(model: Model) -> Model:
    """With a chat template, and a padding token by which the model finds the end of a text."""
    tokenizer, config = model.processor, _text_config(model.module)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    config.pad_token_id = tokenizer.pad_token_id
    config.use_cache = False  # nothing is generated
    chat.ready(model)
    return model


def _text_config(module: Any) -> Any:
    return module.config.get_text_config()


def _manifest(model: Model) -> dict[str, Any]:
    """What scoring needs, as plain JSON."""
    separator = decoder_model.separator_text(model)
    return {
        "runtime": "reward",
        "chat_template": chat.template(model),
        "pad_token_id": model.processor.pad_token_id,
        "max_position_embeddings": context(model),
        "example_prompt": f"How do I boil an egg?{separator}Eight minutes in boiling water.",
        "answer_token": separator,
    }
