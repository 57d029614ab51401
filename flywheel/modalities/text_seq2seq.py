"""Text from text: any `AutoModelForSeq2SeqLM` (T5, BART, ...), or a small T5 from scratch with its own tokenizer.

Of a pair the encoder reads the prompt and the decoder learns the completion. Of a text alone, spans are taken out and
learned (flywheel.modalities.span_corruption). Every pair and every window of a text has a row of its own, padded to the
longest: position embeddings of the encoder cannot be restarted inside a row, so that packing would not be exact.

Not covered: chat templates, preferences, a language code for each side (mBART, NLLB), separate vocabularies (Marian).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import log
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from flywheel.errors import TrainingError
from flywheel.metrics import ngram
from flywheel.metrics.examples import spread
from flywheel.metrics.metric import Metric, bootstrap_ratio
from flywheel.metrics.overlap import corpus_bleu, rouge_l
from flywheel.modalities import seq2seq_model, single_pass_model
from flywheel.modalities.base import Export, Model
from flywheel.modalities.decoder_model import decode, tokenise
from flywheel.modalities.seq2seq_model import Around, context, longest
from flywheel.modalities.span_corruption import Corruption, windows
from flywheel.modalities.text_causal import drawing, text_facts
from flywheel.modalities.token_rows import IGNORED, Ids, shorten
from flywheel.modalities.torch_seq2seq import TorchSeq2Seq
from flywheel.recipe import Evaluate, Generation, Recipe
from flywheel.recipe_models import TextSeq2SeqModel
from flywheel.record import LeftOut, Record, drop
from flywheel.runtimes.base import Predictor, Sampling

ANSWER_TOKENS = 128
"""Longest answer that is scored."""
MULTIPLE = 8
"""Rows are as long as the longest, rounded up to this."""
COMPARED = 512
"""Held-out answers that the baseline of answers is measured on."""


class Lesson(NamedTuple):
    """What the encoder reads, what the decoder writes, and the UTF-8 bytes of the text in it."""

    row: Record
    source: Ids
    target: Ids
    size: int


class Rows(Dataset[Mapping[str, Any]]):
    """`input_ids` and `attention_mask` (prompt,), `decoder_input_ids` and `labels` (answer,): all prompts of one length
    and all answers of one length, `max_length` at most."""

    def __init__(self, lessons: Sequence[Lesson], max_length: int, start: int, pad: int) -> None:
        self.left_out: Sequence[LeftOut] = ()
        """Rows that cannot be learned."""
        self.input_ids = _table([lesson.source for lesson in lessons], max_length, pad)
        self.attention_mask = _table([np.ones_like(lesson.source) for lesson in lessons], max_length, 0)
        self.labels = _table([lesson.target for lesson in lessons], max_length, IGNORED)
        self.decoder_input_ids = np.where(self.labels == IGNORED, pad, self.labels)
        self.decoder_input_ids = np.roll(self.decoder_input_ids, 1, axis=1)
        self.decoder_input_ids[:, :1] = start

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        names = ("input_ids", "attention_mask", "decoder_input_ids", "labels")
        return {name: torch.as_tensor(getattr(self, name)[index], dtype=torch.long) for name in names}


class TextSeq2Seq:
    """The room of text from text. Rows carry `prompt` and `completion`, or `text`."""

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        """Those of text; the text of a pair is its prompt and its completion."""
        return text_facts(_content(record))

    def build(self, recipe: Recipe, rows: Sequence[Record]) -> Model:
        """From `recipe.model.path`, or from scratch: the same rows and recipe give the same weights."""
        config = cast(TextSeq2SeqModel, recipe.model)
        if config.path is not None:
            return seq2seq_model.open_checkpoint(config.path)
        return seq2seq_model.from_scratch(config, [_content(r) for r in rows], recipe.seed)

    def outline(self, recipe: Recipe, max_length: int) -> tuple[nn.Module, Mapping[str, Any]]:
        """The module without weights, and a row whose prompt and answer are as long as may be."""
        names = ("input_ids", "attention_mask", "decoder_input_ids", "labels")
        feature = {name: torch.ones(max_length, dtype=torch.long) for name in names}
        return seq2seq_model.outline(cast(TextSeq2SeqModel, recipe.model)), feature

    def encode(self, model: Model, rows: Sequence[Record], max_length: int, whole: bool = False) -> Rows:
        """A row for each pair and each window of a text: prompts and answers of at most `max_length` tokens each.

        `whole` learns pairs as texts too. What does not fit is in `left_out`. Raises TrainingError for a `max_length`
        beyond the model's positions, and for texts where the tokenizer has no token for a gap.
        """
        _check_length(model, max_length)
        pairs, texts = _by_kind(rows)
        pairs, texts = ([], [*pairs, *texts]) if whole else (pairs, texts)
        known = {id(row) for row in (*pairs, *texts)}
        left_out: list[LeftOut] = [drop(row, "no_text") for row in rows if id(row) not in known]
        lessons: list[Lesson] = []
        for lesson in _pairs(model, pairs):
            fault = _fault(lesson, max_length)
            if fault:
                left_out.append(drop(lesson.row, *fault))
            else:
                lessons.append(lesson)
        gaps = list(_gaps(model, texts, max_length))
        seen = {id(lesson.row) for lesson in gaps}
        left_out += [drop(row, "too_short", "less than two tokens") for row in texts if id(row) not in seen]
        start = seq2seq_model.start(model)
        assert start is not None
        found = Rows([*lessons, *gaps], max_length, start, model.processor.pad_token_id or 0)
        found.left_out = left_out
        return found

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack features into tensors (batch, length)."""
        return {name: torch.stack([f[name] for f in features]) for name in features[0]}

    def losses(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Cross-entropy in nats per token of the answers."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
        logits = module(**inputs, use_cache=False).logits
        return {"": F.cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten(), ignore_index=IGNORED)}

    def save(self, model: Model, directory: Path) -> None:
        """Hub layout: model.safetensors, config.json, generation_config.json, tokenizer.json, tokenizer_config.json."""
        single_pass_model.save(model, directory)

    def load(self, directory: Path) -> Model:
        """Read back what `save` wrote."""
        return seq2seq_model.open_checkpoint(str(directory))

    def predictor(self, model: Model) -> TorchSeq2Seq:
        """The torch reference, on the GPU where there is one. It also offers `log_likelihood`."""
        module: Any = model.module.to("cuda" if torch.cuda.is_available() else "cpu")
        prefix = [seq2seq_model.start(model), seq2seq_model.forced(model)]
        ends = frozenset(seq2seq_model.ends(model))
        return TorchSeq2Seq(module, ends, [token for token in prefix if token is not None], context(model))

    def prompts(self, model: Model, rows: Sequence[Record], count: int) -> list[Any]:
        """At most `count` prompts of token ids that leave half of the context free, spread evenly over the rows: of a
        pair the prompt, of a text its first window with gaps. Where there are both, half of each."""
        pairs, texts = _by_kind(rows)
        most = min(longest(model), context(model) // 2)
        asked = _questions(model, spread(pairs, count // 2 if texts else count), most)
        shown = spread(texts, count - len(asked))
        opened = groupby(_gaps(model, shown, most), key=lambda lesson: id(lesson.row))
        return [next(lessons).source for _, lessons in opened] + asked

    def evaluate(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """Of pairs `answer_bits_per_byte`, and ROUGE-L (0 to 1) and BLEU (0 to 100) of the greedy answers; of texts
        `span_bits_per_byte`, of what was taken out."""
        pairs, texts = _by_kind(rows)
        most = min(longest(model), context(model) // 2)
        scorer, metrics = cast(TorchSeq2Seq, predictor), []
        if gaps := list(_gaps(model, texts, most)):
            metrics.append(_bits_per_byte("span_bits_per_byte", scorer, gaps, seed))
        if pairs:
            cut = [_cut(lesson, most) for lesson in _pairs(model, pairs)]
            metrics.append(_bits_per_byte("answer_bits_per_byte", scorer, cut, seed))
            chosen = spread(pairs, config.num_samples)
            steps = min(ANSWER_TOKENS, most)
            drawn = predictor.generate(_questions(model, chosen, most), Sampling(max_new_tokens=steps))
            said, references = [decode(model, ids).strip() for ids in drawn], [r.completion or "" for r in chosen]
            metrics.append(rouge_l("answer_rouge_l", said, references, seed))
            metrics.append(corpus_bleu("answer_bleu", said, references, seed))
        return metrics

    def baselines(self, model: Model, train: Sequence[Record], heldout: Sequence[Record]) -> dict[str, float]:
        """Bits per byte of a 5-gram model of what the decoder writes, which does not see prompts; ROUGE-L and BLEU of
        the answer whose prompt is most alike among the training rows (TF-IDF, cosine)."""
        found: dict[str, float] = {}
        most = min(longest(model), context(model) // 2)
        known, held = _by_kind(train), _by_kind(heldout)
        lessons = [[_cut(lesson, most) for lesson in _pairs(model, pairs)] for pairs in (known[0], held[0])]
        gaps = [list(_gaps(model, texts, most)) for texts in (known[1], held[1])]
        for name, (fit, scored) in (("answer_bits_per_byte", lessons), ("span_bits_per_byte", gaps)):
            if fit and scored:
                seen, asked = ([lesson.target.tolist() for lesson in part] for part in (fit, scored))
                bits = ngram.bits(seen, asked, vocab_size=_vocabulary(model))
                found[name] = float(bits.sum() / max(1, sum(lesson.size for lesson in scored)))
        if known[0] and held[0]:
            chosen = spread(held[0], COMPARED)
            said, references = _nearest(known[0], chosen), [r.completion or "" for r in chosen]
            found["answer_rouge_l"] = rouge_l("", said, references, 0).value
            found["answer_bleu"] = corpus_bleu("", said, references, 0).value
        return found

    def samples(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], generation: Generation, seed: int
    ) -> list[dict[str, str]]:
        """Up to four `{"prompt", "completion"}`, drawn as `generation` says."""
        prompts = self.prompts(model, rows, 4)
        completions = predictor.generate(prompts, drawing(generation, seed, context(model) // 2))
        shown = seq2seq_model.shown
        return [
            {"prompt": shown(model, prompt), "completion": shown(model, completion)}
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def export(self, model: Model, directory: Path) -> Export:
        """An encoder and a decoder with a cache, and tokenizer.json beside them."""
        single_pass_model.save_tokenizer(model, directory)
        manifest = {
            "runtime": "seq2seq",
            "eos_token_id": seq2seq_model.ends(model),
            "decoder_start_token_id": seq2seq_model.start(model),
            "forced_bos_token_id": seq2seq_model.forced(model),
            "max_position_embeddings": context(model),
            "example_prompt": "Once ",
        }
        return Export(seq2seq_model.graphs(model), manifest)


def _content(row: Record) -> str:
    """The text of a row; prompt and completion for a pair."""
    return row.text if row.text is not None else f"{row.prompt or ''}{row.completion or ''}"


def _by_kind(rows: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Pairs, and texts; a prompt alone is neither."""
    pairs = [r for r in rows if r.completion is not None and r.prompt is not None]
    return pairs, [r for r in rows if r.text is not None and r.completion is None]


def _pairs(model: Model, rows: Sequence[Record]) -> list[Lesson]:
    """Prompt and completion of each row, however long."""
    asked = seq2seq_model.prompts(model, [r.prompt or "" for r in rows])
    answers = seq2seq_model.answers(model, [r.completion or "" for r in rows])
    sizes = [len((r.completion or "").encode(errors="replace")) for r in rows]
    return [Lesson(*parts) for parts in zip(rows, asked, answers, sizes, strict=True)]


def _fault(lesson: Lesson, max_length: int) -> tuple[str, str] | None:
    """Why a pair cannot be learned, and in numbers."""
    if not (lesson.row.prompt or "").strip():
        return "empty_prompt", ""
    if not lesson.size:
        return "empty_completion", ""
    for name, ids in (("prompt", lesson.source), ("completion", lesson.target)):
        if len(ids) > max_length:
            return f"{name}_too_long", f"{len(ids)} tokens, {max_length} fit"
    return None


def _gaps(model: Model, rows: Sequence[Record], most: int) -> list[Lesson]:
    """Each window of the texts, with spans taken out: encoder and decoder get at most `most` tokens."""
    if not rows:
        return []
    corruption = Corruption.of(model.processor)
    if corruption is None:
        raise TrainingError(
            "rows of text alone",
            found="a tokenizer without <extra_id_0> and without a mask token",
            expected="a token that stands for a gap",
            remedy="give rows with `prompt` and `completion`, or a checkpoint such as T5 or BART",
        )
    source, target = Around.of(model), seq2seq_model.around_answers(model)
    room = most - max(source.size, target.size)
    found = []
    for row, ids in zip(rows, tokenise(model, [_content(r) for r in rows]), strict=True):
        for window in windows(ids, max(2, room)):
            if len(window) > 1:
                made = corruption.apply(window)
                size = len(decode(model, made.hidden).encode())
                found.append(Lesson(row, source.put(made.source), target.put(made.target), size))
    return found


def _cut(lesson: Lesson, most: int) -> Lesson:
    """A pair that fits, for measuring: of a prompt start and end are kept, of an answer its start, with its share of
    the bytes."""
    if len(lesson.target) <= most:
        return lesson._replace(source=shorten(lesson.source, most))
    size = lesson.size * most // len(lesson.target)
    return Lesson(lesson.row, shorten(lesson.source, most), lesson.target[:most], size)


def _questions(model: Model, rows: Sequence[Record], most: int) -> list[Ids]:
    return [shorten(ids, most) for ids in seq2seq_model.prompts(model, [r.prompt or "" for r in rows])]


def _bits_per_byte(name: str, scorer: TorchSeq2Seq, lessons: Sequence[Lesson], seed: int) -> Metric:
    """Bits of everything that the decoder writes, sentinels and end tokens included, for each byte of text in it;
    resampled by row."""
    nats = scorer.log_likelihood([lesson.source for lesson in lessons], [lesson.target for lesson in lessons])
    rows = {id(lesson.row): place for place, lesson in enumerate(lessons)}
    owner = [rows[id(lesson.row)] for lesson in lessons]
    bits, sizes = np.zeros(len(lessons)), np.zeros(len(lessons))
    np.add.at(bits, owner, [-float(row.sum()) / log(2) for row in nats])
    np.add.at(sizes, owner, [float(lesson.size) for lesson in lessons])
    kept = sorted(set(owner))
    return bootstrap_ratio(name, "lower", bits[kept], np.maximum(sizes[kept], 1), seed)


def _nearest(known: Sequence[Record], asked: Sequence[Record]) -> list[str]:
    """For each prompt the completion of the known prompt that is most alike; of equals the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=50_000)
    seen = vectoriser.fit_transform([f"{r.prompt} ." for r in known])
    found = (vectoriser.transform([f"{r.prompt} ."]) @ seen.T for r in asked)
    return [known[int(row.toarray().argmax())].completion or "" for row in found]


def _vocabulary(model: Model) -> int:
    config: Any = model.module.config
    return max(len(model.processor), int(config.vocab_size))


def _check_length(model: Model, max_length: int) -> None:
    most = longest(model)
    if max_length > most and context(model) == most:
        raise TrainingError(
            "train.max_length",
            found=str(max_length),
            expected=f"at most {most}, the positions of this model",
            remedy="lower max_length",
        )


def _table(sequences: Sequence[Ids], most: int, fill: int) -> Any:
    """Sequences as rows of one length, that of the longest rounded up, int32 (rows, length)."""
    length = -(-max(map(len, sequences), default=0) // MULTIPLE) * MULTIPLE
    table = np.full((len(sequences), min(length, most)), fill, dtype=np.int32)
    for row, ids in enumerate(sequences):
        table[row, : len(ids)] = ids
    return table
