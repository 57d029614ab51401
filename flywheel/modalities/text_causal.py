"""Text, one token after the other: any `AutoModelForCausalLM`, or a small Llama from scratch with its own tokenizer.

Documents are cut into windows and packed; of a pair only the completion is learned, and of a conversation, which the
tokenizer's chat template puts into words, only the assistant's turns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F

from flywheel.linear_cross_entropy import has_plain_head, linear_cross_entropy
from flywheel.metrics import ngram
from flywheel.metrics.base import ANSWER_TOKENS
from flywheel.metrics.examples import answered, reference, spread
from flywheel.metrics.metric import Metric
from flywheel.metrics.overlap import corpus_bleu, rouge_l
from flywheel.metrics.text import Documents, Scorer, bits_per_byte
from flywheel.modalities import answers, chat, decoder_model
from flywheel.modalities.base import DecoderCheckpoint, Export, Model
from flywheel.modalities.decoder_model import context, decode
from flywheel.modalities.speaker import DecoderSpeaker
from flywheel.modalities.token_rows import IGNORED, Ids, TokenRows, shorten
from flywheel.modalities.torch_decoder import TorchDecoder
from flywheel.recipe import Evaluate, Generation, Recipe
from flywheel.recipe_models import DecoderModel
from flywheel.record import Record, texts
from flywheel.runtimes.base import Predictor, Sampling

if TYPE_CHECKING:
    from torch.utils.data import Dataset


class TextCausal:
    """The room of plain text. Rows carry `text`, `prompt` and `completion`, or `messages`."""

    answer = "answer"
    """What a completion is called in the names of metrics."""
    example = "Once "
    """A prompt to try a served model with."""

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        """`length` in characters, `valid_utf8`, `replacement_characters` (U+FFFD) and `digest` of the text, which is
        prompt and completion for a pair."""
        return text_facts(content(record))

    def build(self, recipe: Recipe, rows: Sequence[Record]) -> Model:
        """From `recipe.model.path`, or from scratch: the same rows and recipe give the same weights."""
        config = cast(DecoderModel, recipe.model)
        if config.path is not None:
            return decoder_model.open_checkpoint(config.path)
        talks = any(r.messages is not None for r in rows)
        special = (chat.TURN, chat.TURN_END) if talks else ()
        model = decoder_model.from_scratch(config, [content(r) for r in rows], recipe.seed, special)
        if talks:
            chat.ready(model)
        return model

    def outline(self, recipe: Recipe, max_length: int) -> tuple[torch.nn.Module, Mapping[str, Any]]:
        """The module without weights, and a packed row that is one document."""
        ids, places = torch.zeros(max_length, dtype=torch.long), torch.arange(max_length)
        feature = {"input_ids": ids, "labels": ids, "position_ids": places}
        return decoder_model.outline(cast(DecoderModel, recipe.model)), feature

    def encode(
        self, model: Model, rows: Sequence[Record], max_length: int, whole: bool = False
    ) -> Dataset[Mapping[str, Any]]:
        """Rows of `max_length` tokens: `input_ids`, `labels`, `position_ids`, in which sequences are packed."""
        decoder_model.check_length(max_length, context(model))
        learned, left_out = answers.pieces(model, rows, max_length, whole)
        found = TokenRows(learned, max_length, model.processor.eos_token_id, left_out)
        return cast("Dataset[Mapping[str, Any]]", found)

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack features into tensors (batch, max_length)."""
        return {name: torch.stack([f[name] for f in features]) for name in features[0]}

    def losses(self, module: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Cross-entropy in nats per token that has a label."""
        # With a cache, transformers would let the sequences of a row see each other.
        inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
        following = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
        if has_plain_head(module):
            hidden = cast(Any, module.base_model)(**inputs).last_hidden_state
            weight = cast(torch.Tensor, cast(Any, module.lm_head).weight)
            return {"": linear_cross_entropy(hidden.flatten(0, 1), weight, following, IGNORED)}
        logits = module(**inputs).logits
        return {"": F.cross_entropy(logits.flatten(0, 1).float(), following, ignore_index=IGNORED)}

    def save(self, model: Model, directory: Path) -> None:
        """Hub layout: model.safetensors, config.json, generation_config.json, tokenizer.json, tokenizer_config.json."""
        model.module.save_pretrained(directory)  # type: ignore[operator]
        model.processor.save_pretrained(directory)

    def load(self, directory: Path) -> Model:
        """Read back what `save` wrote."""
        return decoder_model.open_checkpoint(str(directory))

    def predictor(self, model: Model) -> TorchDecoder:
        """The torch reference, on the GPU where there is one. It also offers `log_likelihood`."""
        module: Any = model.module.to("cuda" if torch.cuda.is_available() else "cpu")
        module.set_attn_implementation("sdpa")
        return TorchDecoder(module, frozenset(decoder_model.ends(model)), context(model))

    def speaker(self, model: Model, predictor: Predictor) -> DecoderSpeaker:
        """The model, asked in strings."""
        return DecoderSpeaker(model, predictor)

    def prompts(self, model: Model, rows: Sequence[Record], count: int) -> list[Any]:
        """At most `count` prompts of token ids that leave half of the context free, spread evenly over the
        rows: of a document its start, of others the question. Where there are both, half of each."""
        plain = answers.kinds(rows).documents
        others = [r for r in map(answered, rows) if r.prompt is not None or r.messages is not None]
        room = context(model) // 2
        asked = spread(others, count // 2 if plain else count)
        return self._openings(model, plain, count - len(asked), room) + self._questions(model, asked, room)

    def evaluate(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """`bits_per_byte` of documents; ROUGE-L (0 to 1) and BLEU (0 to 100) of the greedy answers to pairs, and to
        conversations up to their last answer."""
        plain, *others = answers.kinds(rows)
        answered = [row for kind in others for row in kind]
        metrics = []
        if plain:
            documents = Documents(decoder_model.documents(model, _texts(plain)), _sizes(plain))
            metrics.append(bits_per_byte(cast(Scorer, predictor), documents, context(model), seed))
            metrics += self._completion_metrics(predictor, model, plain, config, seed)
        if answered:
            chosen = spread(answered, config.num_samples)
            given, references = self._answers(predictor, model, chosen), [reference(r) for r in chosen]
            metrics.append(rouge_l(f"{self.answer}_rouge_l", given, references, seed))
            metrics.append(corpus_bleu(f"{self.answer}_bleu", given, references, seed))
        return metrics

    def baselines(self, model: Model, train: Sequence[Record], heldout: Sequence[Record]) -> dict[str, float]:
        """`bits_per_byte` of a 5-gram model that is fitted to the same documents and scored on the same tokens."""
        train, heldout = answers.kinds(train).documents, answers.kinds(heldout).documents
        if not train or not heldout:
            return {}
        fit, held = ([ids[1:].tolist() for ids in decoder_model.documents(model, _texts(s))] for s in (train, heldout))
        bits = ngram.bits(fit, held, vocab_size=len(model.processor))
        return {"bits_per_byte": float(bits.sum() / sum(_sizes(heldout)))}

    def samples(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], generation: Generation, seed: int
    ) -> list[dict[str, str]]:
        """Up to four `{"prompt", "completion"}`, drawn as `generation` says."""
        prompts = self.prompts(model, rows, 4)
        completions = predictor.generate(prompts, drawing(generation, seed, context(model) // 2))
        return [
            {"prompt": decode(model, prompt), "completion": decode(model, completion)}
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def export(self, model: Model, directory: Path) -> Export:
        """The checkpoint in `directory/checkpoint`, and tokenizer.json beside it."""
        self.save(model, directory / "checkpoint")
        model.processor.backend_tokenizer.save(str(directory / "tokenizer.json"))
        ends = decoder_model.ends(model)
        template = {} if not model.processor.chat_template else {"chat_template": chat.template(model)}
        manifest = {
            **template,
            "runtime": "decoder",
            "eos_token_id": ends[0] if len(ends) == 1 else ends,
            "bos_token_id": model.processor.bos_token_id,
            "max_position_embeddings": context(model),
            "example_prompt": self.example,
            "answer_token": decoder_model.separator_text(model),
        }
        return Export({"model": DecoderCheckpoint(directory / "checkpoint")}, manifest)

    def _openings(self, model: Model, rows: Sequence[Record], count: int, room: int) -> list[Ids]:
        """The first tokens of documents, at most half of each."""
        texts = [text[: 8 * room] for text in _texts(spread(rows, count))]
        found = decoder_model.tokenise(model, texts, template=True)
        return [ids[: max(1, min(room, len(ids) // 2))] for ids in found if len(ids)]

    def _completion_metrics(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """Metrics of how the model goes on after a part of a document: none for plain text."""
        return []

    def _questions(self, model: Model, rows: Sequence[Record], room: int) -> list[Ids]:
        return [shorten(ids, room) for ids in answers.questions(model, rows)]

    def _answers(self, predictor: Predictor, model: Model, rows: Sequence[Record]) -> list[str]:
        steps = min(ANSWER_TOKENS, context(model) // 2)
        drawn = predictor.generate(self._questions(model, rows, context(model) - steps), Sampling(max_new_tokens=steps))
        return [decode(model, ids).strip() for ids in drawn]


def text_facts(text: str) -> dict[str, bool | int | float | str]:
    """`length` in characters, `valid_utf8`, `replacement_characters` and `digest` of a text."""
    encoded = text.encode("utf-8", errors="surrogatepass")
    replaced = text.count("\N{REPLACEMENT CHARACTER}")
    return {
        "length": len(text),
        "valid_utf8": not replaced and encoded == text.encode("utf-8", errors="replace"),
        "replacement_characters": replaced,
        "digest": hashlib.sha256(encoded).hexdigest(),
    }


def content(record: Record) -> str:
    """The text of a row; prompt and completion for a pair; all that is said in a conversation or a preference."""
    if record.messages is None and record.chosen is None and record.rejected is None:
        return record.text if record.text is not None else f"{record.prompt or ''}{record.completion or ''}"
    return "\n".join(texts(record))


def drawing(generation: Generation, seed: int, longest: int) -> Sampling:
    """What the recipe says of generation, with at most `longest` new tokens."""
    return Sampling(
        max_new_tokens=min(generation.max_new_tokens, longest),
        temperature=generation.temperature if generation.do_sample else 0.0,
        top_k=generation.top_k,
        top_p=generation.top_p,
        seed=seed,
    )


def _texts(rows: Sequence[Record]) -> list[str]:
    return [r.text or "" for r in rows]


def _sizes(rows: Sequence[Record]) -> list[int]:
    return [len(text.encode()) for text in _texts(rows)]
