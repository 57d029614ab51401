"""The sources of a recipe: one class for each type of `data.sources`, all documented under their fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from flywheel.recipe_base import Section

Column = Literal["text", "prompt", "completion", "messages", "chosen", "rejected", "image", "audio", "label", "group"]


class AnySource(Section):
    """What every source has."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """What rows and counts call it. Empty: the last part of its path or address."""
    license: str = "unknown"
    """SPDX identifier of the licence of its content."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """Share of its rows to train on: 0.5 takes every other row, 2 shows every training row twice."""


class TableSource(AnySource):
    """What a source of rows with columns has."""

    columns: dict[Column, str] = {}
    """Standard column to the name it has in the data: `{prompt: question, completion: answer}`. Empty: standard names,
    and the layouts of alpaca and sharegpt, are recognised. `group` names what must stay on one side of the split."""


class RemoteSource(AnySource):
    """What is fetched before it is read."""

    refresh: bool = True
    """Ask again at every run; false keeps the first snapshot."""


class CodeSource(AnySource):
    """A tree of source-code files, one row for each."""

    type: Literal["code"]
    path: str
    """A directory, `s3://bucket/prefix`, or `stdlib` for the standard library of the interpreter."""
    include: tuple[str, ...] = ("**/*.py",)
    """Glob patterns of files to read, relative to `path`."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of files to leave out; each file left out is counted as `excluded`."""
    max_bytes: int = Field(default=1_000_000, ge=1)
    """Larger files are left out and counted as `too_large`."""


class FilesSource(TableSource):
    """Documents (txt, md, html, pdf, docx), tables (csv, tsv, json, jsonl, parquet, xlsx), and archives of them."""

    type: Literal["files"]
    path: str
    """A file, a directory, or `s3://bucket/prefix`."""
    include: tuple[str, ...] = ("**/*",)
    """Glob patterns of files to read, relative to `path`."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of files to leave out; each file left out is counted as `excluded`."""
    encoding: str = "utf-8"
    """Encoding of text files; `auto` guesses for each file. A byte order mark wins over both."""

    @field_validator("encoding")
    @classmethod
    def is_one(cls, name: str) -> str:
        try:
            "".encode(name if name != "auto" else "utf-8")
        except (LookupError, ValueError):
            raise ValueError("`auto`, or an encoding of text that Python knows, such as utf-8 or cp1252") from None
        return name


class MediaSource(AnySource):
    """Shared by folders of pictures and of recordings. A `metadata.csv` or `metadata.jsonl` with the columns
    `file_name` and `text` (or `label`) is read as Hugging Face's folder loaders do; so is `name.txt` beside `name.png`.
    """

    path: str
    """A directory or an archive (zip, tar, tar.gz), or `s3://bucket/prefix`; archives in a directory are opened too."""
    pattern: str | None = None
    """Regular expression on the file's name without its ending, whose groups `label`, `text` and `group` fill these
    columns: `(?P<label>\\d)_(?P<group>[a-z]+)_\\d+`. Empty: the directory's name is the label."""
    max_bytes: int = Field(default=50_000_000, ge=1)
    """Larger files are left out and counted as `too_large`."""


class ImageFolderSource(MediaSource):
    """A folder of pictures with captions or labels."""

    type: Literal["imagefolder"]


class AudioFolderSource(MediaSource):
    """A folder of recordings (wav, flac, ogg, mp3) with transcripts or labels."""

    type: Literal["audiofolder"]


class SklearnSource(AnySource):
    """A labelled image dataset that comes with scikit-learn."""

    type: Literal["sklearn"]
    dataset: Literal["digits"] = "digits"
    """`digits`: 1,797 handwritten digits of 8x8 pixels."""
    license: str = "CC-BY-4.0"
    """SPDX identifier of the licence of the dataset."""


class SqlSource(TableSource, RemoteSource):
    """The rows of a query, read in one read-only transaction through a server-side cursor."""

    type: Literal["sql"]
    url: str
    """SQLAlchemy URL; `${NAME}` is taken from the environment: `postgresql+psycopg://me:${PGPASSWORD}@db/shop`."""
    query: str
    """One SELECT, with `:name` where a parameter is bound. Order it, so that rows keep their ids."""
    parameters: dict[str, str | int | float | bool | None] = {}
    """Values bound to the query; never pasted into it."""
    batch_size: int = Field(default=1_000, ge=1)
    """Rows fetched at a time."""
    max_rows: int | None = Field(default=None, ge=1)
    """Rows at most, from the start."""


class Pagination(Section):
    """How a REST server says where the next page is."""

    style: Literal["none", "link", "cursor", "page", "offset"] = "link"
    """`link`: the header `Link: <...>; rel="next"` or an address in the body at `next`; `cursor`: a token in the body
    at `next`, sent as `parameter`; `page` and `offset` count until a page is empty."""
    next: str = "next"
    """Dotted path of the next address or token in the body."""
    parameter: str = "page"
    """Query parameter that carries the cursor, page number or offset."""
    size_parameter: str | None = None
    """Query parameter that carries `size`."""
    size: int = Field(default=100, ge=1)
    """Rows of a page, for `offset` and `size_parameter`."""
    start: int = 1
    """Number of the first page."""


class RestSource(TableSource, RemoteSource):
    """A paginated JSON API."""

    type: Literal["rest"]
    url: str
    """Address of the first page (http or https)."""
    params: dict[str, str] = {}
    """Query parameters of every request."""
    headers: dict[str, str] = {}
    """Headers of every request; `${NAME}` is taken from the environment: `{Authorization: "Bearer ${TOKEN}"}`."""
    records: str = ""
    """Dotted path of the list of rows in the body. Empty: the body is the list, or its only list."""
    pagination: Pagination = Pagination()
    """How to get from page to page."""
    max_pages: int = Field(default=1_000, ge=1)
    """Pages at most."""


class WebSource(RemoteSource):
    """Pages of web sites, fetched politely: robots.txt is obeyed and the main text is kept."""

    type: Literal["web"]
    urls: tuple[str, ...] = Field(min_length=1)
    """Where to start; links are followed within these hosts."""
    sitemap: bool = True
    """Also start from the addresses in each host's sitemap."""
    include: tuple[str, ...] = ("**",)
    """Glob patterns of paths to keep, such as `/docs/**`."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of paths to leave alone."""
    max_pages: int = Field(default=100, ge=1)
    """Pages at most, over all hosts."""
    max_depth: int = Field(default=3, ge=0)
    """Links followed from a start page."""
    delay: float = Field(default=1.0, ge=0)
    """Seconds between two requests to one host; robots.txt may ask for more."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """Hosts asked at the same time; each host gets one request at a time."""


class HuggingFaceSource(TableSource, RemoteSource):
    """A dataset of the Hugging Face hub, or one that lies in a local directory."""

    type: Literal["huggingface"]
    path: str
    """Hub id or local directory, as for `datasets.load_dataset`. Code in a dataset is never run."""
    config: str | None = None
    """Name of the configuration (`name` of load_dataset)."""
    split: str = "train"
    """Split to read."""
    revision: str | None = None
    """Branch, tag or commit; a commit makes the run repeatable."""
    streaming: bool = True
    """Fetch row by row, without keeping the whole dataset on the disk first."""
    max_rows: int | None = Field(default=None, ge=1)
    """Rows at most, from the start."""


class SyntheticSource(AnySource):
    """Rows drawn from templates or a grammar, the same for the same seed."""

    type: Literal["synthetic"]
    count: int = Field(ge=1)
    """Number of rows."""
    templates: dict[Column, tuple[str, ...]]
    """Standard column to texts with `{slot}`s: `{prompt: ["Spell {word}."], completion: ["{word}"]}`; for each row the
    same position is taken from every column's list, and a slot means the same in all of them."""
    slots: dict[str, tuple[str, ...] | dict[str, int]] = {}
    """What fills a slot: a list of texts, which may have slots themselves (a grammar), or `{min: 1, max: 99}`."""
    seed: int = Field(default=0, ge=0)
    """Seed of the drawing."""
    license: str = "CC0-1.0"
    """SPDX identifier of the licence of the rows."""

    @model_validator(mode="after")
    def same_length(self) -> SyntheticSource:
        if len({len(texts) for texts in self.templates.values()}) != 1:
            raise ValueError("every column of templates needs the same number of texts")
        return self


class ModelSource(RemoteSource):
    """Rows written by a model of the registry: its completions of templated prompts."""

    type: Literal["model"]
    model: str
    """NAME, NAME@alias or NAME/version."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Templates of the prompts, with `{slot}`s."""
    slots: dict[str, tuple[str, ...] | dict[str, int]] = {}
    """What fills a slot."""
    count: int = Field(ge=1)
    """Number of rows."""
    generation: dict[str, JsonValue] = {}
    """GenerationConfig names: `{max_new_tokens: 64, temperature: 0.8}`."""
    seed: int = Field(default=0, ge=0)
    """Seed of the drawing and of the model's sampling."""


class FeedbackSource(RemoteSource):
    """What users of a served model sent back: corrections become completions, ratings become labels."""

    type: Literal["feedback"]
    model: str
    """Name of the served model."""
    rating: Literal["up", "any"] = "up"
    """`up` keeps answers that were liked, and all corrections; `any` keeps all."""


Source = Annotated[
    CodeSource
    | FilesSource
    | ImageFolderSource
    | AudioFolderSource
    | SklearnSource
    | SqlSource
    | RestSource
    | WebSource
    | HuggingFaceSource
    | SyntheticSource
    | ModelSource
    | FeedbackSource,
    Field(discriminator="type"),
]
