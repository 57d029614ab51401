"""A dataset of the Hugging Face hub or of a local directory, row group by row group, with pictures left encoded.

Nothing of a dataset is run: a loading script is refused. What a dataset names is read only where it belongs to the
dataset: data files and pictures on other hosts or elsewhere on this machine are refused or left empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.confinement import MEMORY, SECONDS, Caps
from flywheel.errors import SourceError
from flywheel.recipe_sources import HuggingFaceSource
from flywheel.sources.rolling import RollingParquet
from flywheel.workers import Request, here

if TYPE_CHECKING:
    import pyarrow as pa

PACE, DISK, DISK_FACTOR = 1_000_000, 1 << 30, 20
"""Bytes a second at which a local directory must be read, and what may be written meanwhile: bytes, times its size."""
BATCH = 100
"""Rows that are held at a time; pictures may be large."""
CARD_BYTES = 1 << 20
"""Of a dataset's README.md that are looked at."""


def acquire(
    source: HuggingFaceSource, into: Path, *, environment: Mapping[str, str], allowed: frozenset[str]
) -> dict[str, Any]:
    """Write the rows of a split into `into`/rows-00000.parquet and so on; returns `rows` and `files`.

    Pictures and recordings become columns of encoded bytes, class labels their names. A private dataset needs HF_TOKEN
    in `environment`. `allowed` plays no part: only the hub itself is asked. Raises SourceError where the dataset cannot
    be read: no such dataset, split or configuration, a loading script, or the hub is not to be asked.
    """
    return _apart(source, into) if _local(source.path) else read(source, into, environment)


def _apart(source: HuggingFaceSource, into: Path) -> dict[str, Any]:
    """Read a local directory in a confined child process: its files may be anyone's."""
    into.mkdir(parents=True, exist_ok=True)
    size = sum(path.stat().st_size for path in Path(source.path).expanduser().rglob("*") if path.is_file())
    room = DISK_FACTOR * size  # Arrow files are mapped into memory, whole
    caps = Caps(str(into), MEMORY + room, max(SECONDS, size / PACE), max(DISK, room))
    argument = {"source": source.model_dump(mode="json"), "into": str(into)}
    (answer,) = here([Request("flywheel.sources.huggingface_apart:acquire", argument, caps)])
    if answer.fault:
        remedy = "look at its files: they take more memory or time to read than their size allows, or are damaged"
        raise _refused(f"dataset {source.path}", f"{answer.fault} {answer.detail}", "files that can be read", remedy)
    if "refused" in answer.value:
        raise SourceError(**answer.value["refused"])
    return dict(answer.value)


def read(source: HuggingFaceSource, into: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """`acquire` in this very process."""
    local = _local(source.path)
    try:
        dataset = _saved(source, local) if local and _is_saved(local) else _loaded(source, local, environment)
        with RollingParquet(into) as files:
            for table in _tables(dataset, source.max_rows):
                files.write(_plain(table, local, source.path))
            return {"rows": files.rows, "files": files.files}
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # whatever a reader of any format says, and the hub's client
        raise _failed(source, error) from error


def _local(path: str) -> Path | None:
    directory = Path(path).expanduser()
    return directory.resolve() if directory.is_dir() else None


def _is_saved(directory: Path) -> bool:
    return (directory / "dataset_dict.json").is_file() or (directory / "state.json").is_file()


def _saved(source: HuggingFaceSource, directory: Path) -> Any:
    """A dataset that `save_to_disk` wrote."""
    from datasets import DatasetDict, load_from_disk

    found = load_from_disk(str(directory))
    if isinstance(found, DatasetDict):
        splits = {str(name): dataset for name, dataset in found.items()}
    else:
        splits = {str(found.split or "train"): found}
    if source.split not in splits:
        raise _refused(
            f"dataset {source.path}", f"the splits {', '.join(splits)}", f"a split {source.split}", "set `split`"
        )
    return splits[source.split]


def _loaded(source: HuggingFaceSource, local: Path | None, environment: Mapping[str, str]) -> Any:
    from datasets import load_dataset_builder

    _refuse_script(source.path, local)
    if local:
        _refuse_foreign_patterns(local)
    else:
        _refuse_what_is_no_dataset(source.path)
    builder = load_dataset_builder(
        str(local or source.path),
        name=source.config,
        revision=None if local else source.revision,
        token=environment.get("HF_TOKEN"),
    )
    for files in (builder.config.data_files or {}).values():
        for file in files:
            if not _belongs(file, local, source.path):
                raise _foreign(source.path, file)
    if source.streaming:
        return builder.as_streaming_dataset(split=source.split)
    builder.download_and_prepare()
    return builder.as_dataset(split=source.split)


def _tables(dataset: Any, most: int | None) -> Iterator[pa.Table]:
    """Arrow tables of BATCH rows, `most` rows in all."""
    seen = 0
    for table in dataset.with_format("arrow").iter(batch_size=BATCH):
        if most is not None and seen + table.num_rows >= most:
            yield table.slice(0, most - seen)
            return
        seen += table.num_rows
        yield table


# ---------------------------------------------------------------- cells


def _plain(table: pa.Table, local: Path | None, dataset: str) -> pa.Table:
    """Columns of plain Arrow types: bytes for pictures and recordings, names for class labels."""
    import pyarrow as pa
    from datasets import Audio, ClassLabel, Features, Image

    features = Features.from_arrow_schema(table.schema)
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        feature = features[name]
        if isinstance(feature, Image | Audio):
            cells = [_encoded(cell, local, dataset) for cell in column.to_pylist()]
            columns.append(pa.array(cells, pa.binary()))
        elif isinstance(feature, ClassLabel):
            names = [None if n is None or n < 0 else feature.int2str(n) for n in column.to_pylist()]
            columns.append(pa.array(names, pa.string()))
        elif isinstance(column.type, pa.BaseExtensionType):
            columns.append(column.cast(column.type.storage_type))
        else:
            columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _encoded(cell: Mapping[str, Any] | None, local: Path | None, dataset: str) -> bytes | None:
    """The bytes of a picture or recording; None where it lies outside of the dataset or is gone."""
    from datasets.download.streaming_download_manager import xopen

    if cell is None or cell["bytes"] is not None:
        return None if cell is None else cell["bytes"]
    path = cell["path"]
    if not path or not _belongs(path, local, dataset):
        return None
    try:
        with xopen(path, "rb") as file:
            content: bytes = file.read()
    except OSError:
        return None
    return content


def _belongs(file: str, local: Path | None, dataset: str) -> bool:
    """Whether a file, perhaps a member of an archive (`zip://a.png::archive.zip`), is one of the dataset's own."""
    from datasets import config

    place = file.rsplit("::", 1)[-1]
    if "://" in place:
        return local is None and place.startswith((f"hf://datasets/{dataset}@", f"hf://datasets/{dataset}/"))
    root = local or Path(config.HF_CACHE_HOME).resolve()
    return Path(place).resolve().is_relative_to(root)


# ---------------------------------------------------------------- refusals


def _refuse_script(path: str, local: Path | None) -> None:
    script = local / f"{local.name}.py" if local else None
    if path.endswith(".py") or (script and script.is_file()):
        raise _refused(
            f"dataset {path}",
            f"a loading script {Path(path).name if script is None else script.name}",
            "files of data (parquet, jsonl, csv, pictures, ...); code in a dataset is never run",
            "convert the dataset to parquet where you trust its script, and name that",
        )


def _refuse_what_is_no_dataset(path: str) -> None:
    """`datasets` also takes addresses and the names of its own readers (`json`), which would read what lies around."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if "://" in path or path in _PACKAGED_DATASETS_MODULES:
        raise _refused(
            f"dataset {path}",
            "an address" if "://" in path else f"a reader of `datasets`, not a dataset; no directory {path} either",
            "a local directory or the id of a dataset of the hub",
            "use a source of type `files` for files",
        )


def _refuse_foreign_patterns(directory: Path) -> None:
    """A dataset card may say which files to read: those that lead out are refused before anything looks at them."""
    import yaml

    card = directory / "README.md"
    if not card.is_file():
        return
    with card.open(errors="replace") as file:
        parts = file.read(CARD_BYTES).split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return
    try:
        header = yaml.safe_load(parts[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _refused(f"dataset card {card.name}", str(error)[:200], "valid YAML", "correct or delete it") from error
    for text in _texts(header.get("configs") if isinstance(header, dict) else None):
        if "://" in text or text.startswith(("/", "~")) or ".." in Path(text).parts:
            raise _foreign(directory.name, text)


def _texts(value: Any) -> list[str]:
    """All texts of a YAML document; an alias is looked at once."""
    found, waiting, seen = list[str](), [value], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    return found


def _foreign(dataset: str, file: str) -> SourceError:
    return _refused(
        f"dataset {dataset}", f"a data file {file!r}", "data files inside the dataset", "correct its README.md"
    )


def _failed(source: HuggingFaceSource, error: Exception) -> SourceError:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    said = " ".join(str(error).split())[:500]
    if "Dataset scripts are no longer supported" in said:
        remedy = "name its parquet branch with `revision: refs/convert/parquet`"
    elif HF_HUB_OFFLINE:
        remedy = "give a local directory, or unset HF_HUB_OFFLINE so that the hub may be asked"
    else:
        remedy = "correct `path`, `config`, `split` or `revision`; set HF_TOKEN for a private dataset"
    return _refused(
        f"dataset {source.path}",
        f"{type(error).__name__}: {said}",
        "a local directory or a dataset of the hub that can be read without running code",
        remedy,
    )


def _refused(thing: str, found: str, expected: str, remedy: str) -> SourceError:
    return SourceError(thing, found=found, expected=expected, remedy=remedy)
