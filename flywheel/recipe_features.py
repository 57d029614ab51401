"""The features of a recipe: one class for each type of `features`, all documented under their fields."""

from __future__ import annotations

from os.path import expanduser
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from flywheel.recipe_base import Section

Checkpoint = Annotated[str, AfterValidator(expanduser)]
"""A directory, `~` allowed, or a hub id."""


class AnyFeatures(Section):
    """What all features have."""

    fit_rows: int = Field(default=100_000, ge=1)
    """Training rows, drawn by their ids, that the vectoriser is fitted to; all rows are turned into vectors."""


class WordFeatures(AnyFeatures):
    """Shared by counts of words (names of scikit-learn's CountVectorizer and TfidfVectorizer)."""

    max_features: int = Field(default=2_048, ge=1, le=65_536)
    """The most frequent words, or runs of words, that get a column."""
    min_df: int = Field(default=2, ge=1)
    """Rows, at least, that a word must stand in."""
    max_df: float = Field(default=1.0, gt=0, le=1)
    """Share of the rows, at most, that a word may stand in."""
    ngram_range: tuple[int, int] = (1, 1)
    """Shortest and longest run of words."""
    lowercase: bool = True
    """Take no notice of case."""

    @model_validator(mode="after")
    def range_rises(self) -> WordFeatures:
        if not 1 <= self.ngram_range[0] <= self.ngram_range[1] <= 5:
            raise ValueError("ngram_range needs two rising numbers from 1 to 5")
        return self


class BagOfWords(WordFeatures):
    """How often each word stands in a row."""

    type: Literal["bag_of_words"]


class Tfidf(WordFeatures):
    """How often each word stands in a row, weighted by how rare it is; vectors have length 1."""

    type: Literal["tfidf"]
    sublinear_tf: bool = False
    """Use 1 + log(count) in place of the count."""


class Word2Vec(AnyFeatures):
    """The mean of the vectors of a row's words, learnt from the training rows (names of gensim's Word2Vec)."""

    type: Literal["word2vec"]
    vector_size: int = Field(default=100, ge=2, le=1_024)
    """Width of a vector."""
    window: int = Field(default=5, ge=1)
    """Words to each side that a word is learnt from."""
    min_count: int = Field(default=3, ge=1)
    """Times, at least, that a word must occur."""
    max_final_vocab: int = Field(default=50_000, ge=1)
    """Words at most."""
    sg: Literal[0, 1] = 1
    """1 for skip-gram, 0 for a continuous bag of words."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the rows."""
    seed: int = Field(default=0, ge=0)
    """Seed of the learning, which uses one thread so that it can be repeated."""


class Encoder(AnyFeatures):
    """Shared by features from a transformer."""

    model: Checkpoint
    """A local checkpoint directory or hub id. Its code is never run."""
    batch_size: int = Field(default=16, ge=1)
    """Rows encoded at a time."""
    normalize: bool = True
    """Scale vectors to length 1, so that their product is the cosine."""


class Embeddings(Encoder):
    """The last hidden states of a text encoder or decoder, averaged over the tokens of a row."""

    type: Literal["embeddings"]
    max_length: int = Field(default=256, ge=1)
    """Tokens of a row that are read; the rest is cut off."""


class ImageEmbeddings(Encoder):
    """The output of a vision encoder: its projected picture where it has one (CLIP), else the mean of its patches."""

    type: Literal["image_embeddings"]


class ImagePixels(AnyFeatures):
    """The pixels of a scaled picture, 0 to 1."""

    type: Literal["image_pixels"]
    size: int = Field(default=16, ge=1, le=256)
    """Height and width after scaling."""
    mode: Literal["L", "RGB"] = "L"
    """Grey or colour."""


class LogMel(AnyFeatures):
    """Mean and standard deviation over time of each band of a log-mel spectrogram (names of librosa)."""

    type: Literal["log_mel"]
    sample_rate: int = Field(default=16_000, ge=1_000, le=192_000)
    """Samples a second after resampling."""
    n_fft: int = Field(default=512, ge=16)
    """Samples of a frame."""
    hop_length: int = Field(default=160, ge=1)
    """Samples from one frame to the next."""
    n_mels: int = Field(default=64, ge=1, le=512)
    """Bands."""


Features = Annotated[
    BagOfWords | Tfidf | Word2Vec | Embeddings | ImageEmbeddings | ImagePixels | LogMel,
    Field(discriminator="type"),
]
