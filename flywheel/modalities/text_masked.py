"""Text with gaps: any `AutoModelForMaskedLM` (BERT, RoBERTa, ...), or a small BERT from scratch with its own tokenizer.

A document is cut into pieces `<cls> ... <sep>`. Of their tokens 15 % are learned, drawn anew in every step from torch's
generator, which checkpoints hold: 80 % of these are masked, 10 % replaced by a random token, 10 % left (Devlin et al.
2019). Pieces share a row where the model keeps them apart, else each has a row of its own. Not covered: next-sentence
prediction, masking of whole words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

from flywheel.errors import RecipeError
from flywheel.metrics.examples import spread
from flywheel.metrics.masked import Gap, Neighbours, masked_metrics
from flywheel.metrics.metric import Metric
from flywheel.modalities import single_pass_model
from flywheel.modalities.base import Export, Model
from flywheel.modalities.decoder_model import attention, tokenise
from flywheel.modalities.single_pass_model import context
from flywheel.modalities.text_causal import drawing, text_facts
from flywheel.modalities.token_rows import IGNORED, Ids, Piece, TokenRows
from flywheel.recipe import Evaluate, Generation, Recipe
from flywheel.recipe_models import TextMaskedModel
from flywheel.record import Record, texts
from flywheel.runtimes.base import Predictor
from flywheel.runtimes.single_pass import Filler

if TYPE_CHECKING:
    from torch.utils.data import Dataset

LEARNED = 0.15
"""Share of the tokens that are learned in a step, and that are masked where a model is measured."""
STRIDE = 7
"""Every seventh token is masked where nothing may be drawn at random."""
PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
FAR = -1e9
"""Added to the attention between two pieces."""
SAME = 0.02
"""Where a model keeps two pieces of a row apart, the logits differ from those of each alone by less than this share of
what they differ by when nothing keeps them apart: fresh weights hardly look at other tokens."""


class TextMasked:
    """The room of texts with gaps. Rows carry any text; a row with several is read as one."""

    def facts(self, record: Record) -> dict[str, bool | int | float | str]:
        """As those of plain text."""
        return text_facts(_content(record))

    def build(self, recipe: Recipe, rows: Sequence[Record]) -> Model:
        """From `recipe.model.path`, or from scratch: the same rows and recipe give the same weights."""
        config = cast(TextMaskedModel, recipe.model)
        if config.path is not None:
            return _opened(config.path, recipe.seed)
        tokenizer = _train_tokenizer([_content(r) for r in rows], config)
        architecture = _architecture(config, len(tokenizer), tokenizer.pad_token_id)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            return Model(_module(architecture), tokenizer)

    def outline(self, recipe: Recipe, max_length: int) -> tuple[nn.Module, Mapping[str, Any]]:
        """The module without weights, and a packed row that is one piece."""
        config = cast(TextMaskedModel, recipe.model)
        if config.path is None:
            architecture = _architecture(config, config.tokenizer.vocab_size, 0)
        else:
            architecture = single_pass_model.config_of(config.path, _WHAT)
        ids, places = torch.zeros(max_length, dtype=torch.long), torch.arange(max_length)
        feature = {"input_ids": ids, "labels": ids, "position_ids": places, "mask_token_id": torch.tensor(0)}
        return _module(architecture), feature

    def encode(
        self, model: Model, rows: Sequence[Record], max_length: int, whole: bool = False
    ) -> Dataset[Mapping[str, Any]]:
        """Rows of `max_length` tokens: `input_ids`, `labels` (tokens that may be learned) and `mask_token_id` ();
        `position_ids` where pieces share a row, else `attention_mask`."""
        single_pass_model.check_length(model, max_length)
        pieces = [(ids, labels) for ids, labels, _ in _pieces(model, rows, max_length)]
        first = _first_position(model, max_length)
        return cast("Dataset[Mapping[str, Any]]", _Rows(pieces, max_length, model.processor, first))

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack features into tensors (batch, max_length)."""
        return {name: torch.stack([f[name] for f in features]) for name in features[0]}

    def losses(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Cross-entropy in nats per learned token. In evaluation mode every seventh token is masked."""
        ids, mask = batch["input_ids"], batch["mask_token_id"][:, None]
        may = batch["labels"] != IGNORED
        if module.training:
            config: Any = module.config
            draw = torch.rand(ids.shape, device=ids.device) / LEARNED
            learned = may & (draw < 1)
            shown = torch.where(learned & (draw < 0.8), mask, ids)
            random = torch.randint(config.vocab_size, ids.shape, device=ids.device)
            shown = torch.where(learned & (draw >= 0.8) & (draw < 0.9), random, shown)
        else:
            learned = may & ((ids + torch.arange(ids.shape[1], device=ids.device)) % STRIDE == 0)
            shown = torch.where(learned, mask, ids)
        logits = module(input_ids=shown, **_apart(batch)).logits
        wanted = torch.where(learned, ids, IGNORED).flatten()
        total = F.cross_entropy(logits.flatten(0, 1).float(), wanted, ignore_index=IGNORED, reduction="sum")
        return {"": total / learned.sum().clamp(min=1)}

    def save(self, model: Model, directory: Path) -> None:
        """Hub layout: model.safetensors, config.json, tokenizer.json, tokenizer_config.json."""
        single_pass_model.save(model, directory)

    def load(self, directory: Path) -> Model:
        """Read back what `save` wrote."""
        return _opened(str(directory), 0)

    def predictor(self, model: Model) -> Filler:
        """The torch reference, on the GPU where there is one. It also offers `at_masks`."""
        return Filler(single_pass_model.torch_pass(model), _manifest(model))

    def prompts(self, model: Model, rows: Sequence[Record], count: int) -> list[Any]:
        """At most `count` starts of texts, of at most half a context, with every seventh token masked."""
        room = max(3, context(model) // 2)
        found = [Record(row.id, text=_content(row)[: 8 * room].strip()) for row in spread(_filled(rows), count)]
        first = {row: ids for ids, _, row in reversed(list(_pieces(model, found, room)))}
        starts = [first[row] for row in sorted(first)]
        return [_masked(model, ids, np.arange(1, len(ids) - 1, STRIDE)) for ids in starts]

    def evaluate(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], config: Evaluate, seed: int
    ) -> list[Metric]:
        """`masked_bits_per_token` and `masked_accuracy` of 15 % of the tokens, all of them masked."""
        gaps = [
            Gap(_masked(model, ids, places), ids[places], row)
            for ids, places, row in _drawn(model, rows, context(model), seed)
        ]
        return masked_metrics(cast(Filler, predictor), gaps, len(rows), seed) if gaps else []

    def baselines(self, model: Model, train: Sequence[Record], heldout: Sequence[Record]) -> dict[str, float]:
        """A model of a token's two neighbours, fitted to the same documents; it sees both neighbours unmasked."""
        fit = tokenise(model, [_content(r) for r in train])
        gaps = [(ids[1:-1], places - 1) for ids, places, _ in _drawn(model, heldout, context(model), 0)]
        if not gaps or not any(map(len, fit)):
            return {}
        bits, right = Neighbours(fit, _vocab_size(model)).score(
            [ids for ids, _ in gaps], [places for _, places in gaps]
        )
        return {"masked_bits_per_token": float(bits.mean()), "masked_accuracy": float(right.mean())}

    def samples(
        self, predictor: Predictor, model: Model, rows: Sequence[Record], generation: Generation, seed: int
    ) -> list[dict[str, str]]:
        """Up to four `{"prompt", "completion"}`: a text with gaps, and filled in as `generation` says."""
        prompts = self.prompts(model, rows, 4)
        drawn = predictor.generate(prompts, drawing(generation, seed, context(model)))
        tokenizer, found = model.processor.backend_tokenizer, []
        for prompt, tokens in zip(prompts, drawn, strict=True):
            filled = prompt.copy()
            filled[prompt == model.processor.mask_token_id] = tokens
            shown = (tokenizer.decode(ids[1:-1].tolist(), skip_special_tokens=False) for ids in (prompt, filled))
            found.append(dict(zip(("prompt", "completion"), shown, strict=True)))
        return found

    def export(self, model: Model, directory: Path) -> Export:
        """One graph, and tokenizer.json."""
        single_pass_model.save_tokenizer(model, directory)
        return Export({"model": single_pass_model.graph(model)}, _manifest(model))


class _Rows(TokenRows):
    """`TokenRows` with the mask token. `first` is the position of a piece's first token; None where every piece has a
    row of its own."""

    def __init__(self, pieces: Sequence[Piece], max_length: int, tokenizer: Any, first: int | None) -> None:
        self._mask = torch.tensor(tokenizer.mask_token_id)
        self._packed = first is not None
        if first is not None:
            super().__init__(pieces, max_length, tokenizer.pad_token_id)
            self.position_ids += first
            return
        shape = (len(pieces), max_length)
        self.input_ids = np.full(shape, tokenizer.pad_token_id, dtype=np.int32)
        self.labels = np.full(shape, IGNORED, dtype=np.int32)
        self.attention_mask = np.zeros(shape, dtype=np.int32)
        for row, (ids, labels) in enumerate(pieces):
            self.input_ids[row, : len(ids)], self.labels[row, : len(ids)] = ids, labels
            self.attention_mask[row, : len(ids)] = 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        kept = "position_ids" if self._packed else "attention_mask"
        arrays = {name: getattr(self, name)[index] for name in ("input_ids", "labels", kept)}
        return {
            **{name: torch.as_tensor(row, dtype=torch.long) for name, row in arrays.items()},
            "mask_token_id": self._mask,
        }


_WHAT = "a masked language model"


def _apart(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What keeps the pieces of a row from seeing each other, or a piece from seeing the padding."""
    if "position_ids" not in batch:
        return {"attention_mask": batch["attention_mask"]}
    places = batch["position_ids"]
    piece = (places == places[:, :1]).cumsum(1)
    same = (piece[:, :, None] == piece[:, None, :])[:, None]
    return {"position_ids": places, "attention_mask": torch.where(same, 0.0, FAR)}


@torch.no_grad()
def _first_position(model: Model, max_length: int) -> int | None:
    """Where the positions of a piece begin, if two pieces in a row of this length say what each says alone; else None.

    Tried, not looked up: models count positions from 0 or from behind the padding's, and some (windows of attention,
    relative positions) see more than a mask lets them.
    """
    module = model.module
    device, training = next(module.parameters()).device, module.training
    module.eval()
    sizes = (max_length // 2, max_length - max_length // 2)
    parts = [torch.arange(size, device=device)[None] * 31 % (_vocab_size(model) - 8) + 8 for size in sizes]
    alone = torch.cat([module(input_ids=ids).logits for ids in parts], dim=1)
    found = None
    for first in (0, (model.processor.pad_token_id or 0) + 1):
        places = torch.cat([torch.arange(size, device=device) + first for size in sizes])[None]
        apart = _apart({"position_ids": places})
        mixed = {**apart, "attention_mask": torch.zeros_like(apart["attention_mask"])}
        try:
            off, most = (
                (module(input_ids=torch.cat(parts, dim=1), **inputs).logits - alone).abs().max()
                for inputs in (apart, mixed)
            )
        except (TypeError, ValueError, RuntimeError, IndexError):
            continue
        if off < SAME * most:
            found = first
            break
    module.train(training)
    return found


def _opened(path: str, seed: int) -> Model:
    model = single_pass_model.open_checkpoint(path, AutoModelForMaskedLM, _WHAT, seed)
    tokenizer = model.processor
    missing = [name for name in ("mask_token", "cls_token", "sep_token", "pad_token") if not getattr(tokenizer, name)]
    if missing:
        raise RecipeError(
            f"model.path {path}",
            found=f"a tokenizer without {', '.join(missing)}",
            expected=f"the tokenizer of {_WHAT}",
            remedy="give a checkpoint of this kind",
        )
    return model


def _architecture(config: TextMaskedModel, vocab_size: int, pad: int) -> Any:
    sizes = config.model_dump(exclude={"modality", "path", "tokenizer"})
    return AutoConfig.for_model("bert", vocab_size=vocab_size, pad_token_id=pad, type_vocab_size=1, **sizes)


def _module(architecture: Any) -> nn.Module:
    module: nn.Module = AutoModelForMaskedLM.from_config(  # type: ignore[no-untyped-call]
        architecture, dtype=torch.float32, trust_remote_code=False, attn_implementation=attention()
    )
    return module


def _train_tokenizer(found: Sequence[str], config: TextMaskedModel) -> PreTrainedTokenizerFast:
    """Byte-level BPE (Sennrich et al. 2016) on these texts, with BERT's special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    mask = AddedToken(MASK, lstrip=True, special=True)  # the space before a word is the word's
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.tokenizer.vocab_size,
        special_tokens=[PAD, CLS, SEP, mask],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(found, trainer)
    around = [(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{CLS} $A {SEP}", special_tokens=around)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=mask,
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )


def _content(record: Record) -> str:
    return "\n".join(texts(record))


def _filled(rows: Sequence[Record]) -> list[Record]:
    return [row for row in rows if _content(row).strip()]


def _pieces(model: Model, rows: Sequence[Record], max_length: int) -> Iterator[tuple[Ids, Ids, int]]:
    """Token ids of each piece with its first and last special token, its labels, and the row that it is from."""
    start, end = model.processor.cls_token_id, model.processor.sep_token_id
    for row, ids in enumerate(tokenise(model, [_content(r) for r in rows])):
        for at in range(0, len(ids), max_length - 2):
            body = ids[at : at + max_length - 2]
            yield np.concatenate([[start], body, [end]]), np.concatenate([[IGNORED], body, [IGNORED]]), row


def _drawn(model: Model, rows: Sequence[Record], room: int, seed: int) -> Iterator[tuple[Ids, Ids, int]]:
    """Pieces, the places in each that are masked, at least one, and the row of each."""
    for number, (ids, _, row) in enumerate(_pieces(model, rows, room)):
        order = np.random.default_rng((seed, number)).permutation(len(ids) - 2) + 1
        yield ids, np.sort(order[: max(1, round(LEARNED * len(order)))]), row


def _masked(model: Model, ids: Ids, places: Ids) -> Ids:
    masked = ids.copy()
    masked[places] = model.processor.mask_token_id
    return masked


def _vocab_size(model: Model) -> int:
    return int(model.module.config.vocab_size)  # type: ignore[union-attr, arg-type]


def _manifest(model: Model) -> dict[str, Any]:
    """What filling in needs, as plain JSON."""
    tokenizer = model.processor
    return {
        "runtime": "masked",
        "mask_token": tokenizer.mask_token,
        "mask_token_id": tokenizer.mask_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": _vocab_size(model),
        "max_position_embeddings": context(model),
        "example_prompt": f"Once upon a {tokenizer.mask_token}",
    }
