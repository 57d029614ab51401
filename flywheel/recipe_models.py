"""Models as a recipe names them: one section for each modality, an existing checkpoint or sizes from scratch."""

from __future__ import annotations

from os.path import expanduser
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from flywheel.recipe_base import Section

Checkpoint = Annotated[str, AfterValidator(expanduser)]
"""A directory, `~` allowed, or a hub id."""


class Tokenizer(Section):
    """A byte-level BPE tokenizer trained on the training rows."""

    vocab_size: int = Field(default=4096, ge=300, le=262_144)
    """Number of tokens, special tokens included."""


class DecoderModel(Section):
    """Shared by the decoder-only rooms: an existing checkpoint, or a small architecture from scratch."""

    path: Checkpoint | None = None
    """A local checkpoint directory or hub id. Empty: train from scratch with the sizes below."""
    tokenizer: Tokenizer = Tokenizer()
    """The tokenizer that is trained when there is no checkpoint."""
    model_type: Literal["llama", "qwen3"] = "llama"
    """Architecture from scratch; `qwen3` is Llama with normalised queries and keys, which bears larger steps."""
    hidden_size: int = Field(default=256, ge=16, multiple_of=8)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=768, ge=16)
    """Width of the feed-forward layer."""
    num_hidden_layers: int = Field(default=6, ge=1)
    """Number of transformer blocks."""
    num_attention_heads: int = Field(default=4, ge=1)
    """Number of query heads; `hidden_size` is divided among them."""
    num_key_value_heads: int = Field(default=4, ge=1)
    """Number of key/value heads (grouped-query attention)."""
    max_position_embeddings: int = Field(default=512, ge=16)
    """Longest context in tokens."""
    tie_word_embeddings: bool = True
    """Share the input and output embedding."""

    @model_validator(mode="after")
    def heads_divide(self) -> DecoderModel:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("hidden_size must divide by num_attention_heads, and that by num_key_value_heads")
        if not self.path and self.hidden_size // self.num_attention_heads % 16:
            raise ValueError("hidden_size / num_attention_heads must be a multiple of 16, or onnxruntime cannot run it")
        return self


class TextCausalModel(DecoderModel):
    """Text, one token after the other."""

    modality: Literal["text_causal"]


class CodeModel(DecoderModel):
    """Source code, one token after the other; scored by whether it parses."""

    modality: Literal["code"]


class TextMaskedModel(Section):
    """Text with gaps: an encoder (BERT) that fills in masked tokens."""

    modality: Literal["text_masked"]
    path: Checkpoint | None = None
    """A local checkpoint directory or hub id. Empty: train a small BERT from scratch with the sizes below."""
    tokenizer: Tokenizer = Tokenizer()
    """The tokenizer that is trained when there is no checkpoint."""
    hidden_size: int = Field(default=256, ge=16, multiple_of=8)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=1024, ge=16)
    """Width of the feed-forward layer."""
    num_hidden_layers: int = Field(default=4, ge=1)
    """Number of transformer blocks."""
    num_attention_heads: int = Field(default=4, ge=1)
    """Number of heads; `hidden_size` is divided among them."""
    max_position_embeddings: int = Field(default=512, ge=16)
    """Longest text in tokens."""

    @model_validator(mode="after")
    def heads_divide(self) -> TextMaskedModel:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must divide by num_attention_heads")
        return self


class TextRewardModel(DecoderModel):
    """One number for a text: what people would prefer (a reward model), learned from `chosen` and `rejected`."""

    modality: Literal["text_reward"]
    path: Checkpoint | None = None
    """A local checkpoint directory or hub id, of a language model or of a reward model. Empty: train a small decoder
    from scratch with the sizes below."""


class TextSeq2SeqModel(Section):
    """Text from text: an encoder reads the prompt, a decoder writes the answer (T5, BART)."""

    modality: Literal["text_seq2seq"]
    path: Checkpoint | None = None
    """A local checkpoint directory or hub id. Empty: train a small T5 from scratch with the sizes below."""
    tokenizer: Tokenizer = Tokenizer()
    """The tokenizer that is trained when there is no checkpoint."""
    hidden_size: int = Field(default=256, ge=16, multiple_of=8)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=768, ge=16)
    """Width of the feed-forward layer."""
    num_hidden_layers: int = Field(default=4, ge=1)
    """Number of blocks of the encoder, and as many of the decoder."""
    num_attention_heads: int = Field(default=4, ge=1)
    """Number of heads; `hidden_size` is divided among them."""
    max_position_embeddings: int = Field(default=512, ge=16)
    """Longest prompt, and longest answer, in tokens."""
    dropout_rate: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of a model from scratch; a checkpoint keeps its own."""

    @model_validator(mode="after")
    def heads_divide(self) -> TextSeq2SeqModel:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must divide by num_attention_heads")
        return self


class ImageDiffusionModel(Section):
    """Class-conditional denoising diffusion on small pictures (a diffusers UNet2DModel)."""

    modality: Literal["image_diffusion"]
    path: Checkpoint | None = None
    """A local diffusers pipeline directory. Empty: train from scratch with the sizes below."""
    sample_size: int = Field(default=8, ge=8, multiple_of=8)
    """Height and width of the pictures in pixels."""
    in_channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""
    block_out_channels: tuple[int, ...] = (32, 64)
    """Channels of each resolution, highest resolution first."""
    layers_per_block: int = Field(default=1, ge=1)
    """Residual blocks at each resolution."""
    num_train_timesteps: int = Field(default=1000, ge=10)
    """Steps of the noise schedule."""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    """Shape of the noise over these steps."""
    class_dropout_prob: float = Field(default=0.0, ge=0, lt=1)
    """Share of training pictures shown without their label. Guidance needs it; 0.1 is usual."""

    @model_validator(mode="after")
    def size_halves(self) -> ImageDiffusionModel:
        if self.sample_size % 2 ** (len(self.block_out_channels) - 1):
            raise ValueError("sample_size must halve once for each of block_out_channels but the first")
        return self


Model = Annotated[
    TextCausalModel | CodeModel | TextMaskedModel | TextRewardModel | TextSeq2SeqModel | ImageDiffusionModel,
    Field(discriminator="modality"),
]
