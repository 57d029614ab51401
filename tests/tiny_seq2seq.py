"""Tiny encoder-decoders: a T5 from scratch beside its bundle, and checkpoints laid out as hub snapshots."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flywheel.graphs import Precision, write_graphs
from flywheel.modalities.base import Model
from flywheel.modalities.text_seq2seq import TextSeq2Seq
from flywheel.modalities.torch_seq2seq import TorchSeq2Seq
from flywheel.recipe import Recipe
from flywheel.record import Record
from flywheel.runtimes.seq2seq import Seq2Seq

TEXT = "Größe, naïveté, ☃ and 🎈: the quick brown fox jumps over the lazy dog.\n" * 4
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 96,
}


@dataclass(frozen=True)
class TinySeq2Seq:
    room: TextSeq2Seq
    model: Model
    torch: TorchSeq2Seq
    bundle: Path

    def runtime(self, precision: str = "fp32") -> Seq2Seq:
        return Seq2Seq(self.bundle, json.loads((self.bundle / "manifest.json").read_text()), precision)


def recipe(**model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "answer_rouge_l"},
            "data": {"sources": [{"type": "files", "path": "unused"}]},
            "model": {"modality": "text_seq2seq", "tokenizer": {"vocab_size": 320}, **SIZES, **model},
            "evaluate": {"num_samples": 8},
        }
    )


def wander(model: Model) -> Model:
    """Fresh weights repeat one token; these do not."""
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if weight.ndim == 2:
                weight.mul_(0.3 if "shared" in name else 3)
    return model


def bundle_of(model: Model, bundle: Path, *precisions: Precision) -> TinySeq2Seq:
    room = TextSeq2Seq()
    bundle.mkdir(exist_ok=True)
    exported = room.export(model, bundle)
    for stem, graph in exported.graphs.items():
        write_graphs(graph, stem, bundle, precisions)
    manifest = {**exported.manifest, "default": "fp32", "precisions": list(precisions)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return TinySeq2Seq(room, model, room.predictor(model), bundle)


def build(bundle: Path) -> TinySeq2Seq:
    """A T5 from scratch and its bundle."""
    model = wander(TextSeq2Seq().build(recipe(), [Record(id="0", text=TEXT)]))
    return bundle_of(model, bundle, "fp32", "int8")


def t5_snapshot(directory: Path, **config: Any) -> Path:
    """A T5 as its authors' repositories hold it: SentencePiece-like pieces, sentinels at the end in falling order."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        [TEXT], trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    gaps = [f"<extra_id_{i}>" for i in range(10)]
    tokenizer.add_special_tokens(gaps[::-1])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_truncation(20)
    tokenizer.enable_padding()
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    told = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 10,
        "additional_special_tokens": gaps,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 512,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(told))
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    wanted = {"vocab_size": 128, "decoder_start_token_id": 0, "n_positions": 512, **sizes, **config}
    torch.manual_seed(0)
    module: Any = T5ForConditionalGeneration(T5Config(**wanted))
    module.save_pretrained(directory)
    return directory


def bart_snapshot(directory: Path) -> Path:
    """A BART: learned positions, `<s>` and `</s>` around each text, a mask, and a first token that is forced."""
    from tokenizers.processors import TemplateProcessing
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    from flywheel.modalities.decoder_model import byte_level_bpe

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = byte_level_bpe([TEXT], 320, special)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {f"{name}_token": token for name, token in zip(("bos", "pad", "eos", "unk", "mask"), special, strict=True)}
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, **names, model_max_length=64).save_pretrained(directory)
    sizes = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in (("layers", 1), ("ffn_dim", 64), ("attention_heads", 2))
    }
    torch.manual_seed(0)
    config = BartConfig(vocab_size=len(tokenizer.get_vocab()), d_model=32, max_position_embeddings=64, **sizes)
    module: Any = BartForConditionalGeneration(config)
    module.generation_config.forced_bos_token_id = 0
    module.save_pretrained(directory)
    return directory
