"""What `flywheel why` and `flywheel forget` do: the registry knows a version's lineage, the store its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flywheel import forgetting, provenance
from flywheel.artifact import Artifact
from flywheel.errors import SourceError
from flywheel.forgetting import EVALUATED, TRAINED, Held
from flywheel.provenance import Found
from flywheel.subject import Subject
from infra import registry
from infra.errors import RegistryError
from infra.registry import Version
from infra.settings import Settings

PREFIX = "lineage."


def why(model: str, row: str | None = None, text: str | None = None) -> dict[str, Any]:
    """Which sources and rows made a version; with `row` (an id) or `text`, where that is in its data.

    Where no row that it was made from says the text, `nearest` has those that come near.
    """
    if row is not None and text is not None:
        raise SourceError("--row and --text", found="both", expected="one of them", remedy="leave one out")
    settings = Settings.load()
    version = registry.resolve(settings, model)
    marks = _lineage(version)
    if missing := [step for step in provenance.DATASETS if not (settings.store / step / marks.get(step, "-")).is_dir()]:
        raise RegistryError(
            f"data of {version.name} version {version.version}",
            found=f"no artifact of {', '.join(missing)} in {settings.store}",
            expected="the store in which the version was made",
            remedy="run this where the model was trained, or set FLYWHEEL_HOME",
        )
    found: dict[str, Any] = {"model": version.name, "version": version.version, "aliases": list(version.aliases)}
    if row is not None:
        return {**found, "row": row, "found": _rows(provenance.row(settings.store, marks, row))}
    if text is not None:
        said = provenance.text(settings.store, marks, text)
        return {**found, "text": text, "found": _rows(said.rows), "nearest": _rows(said.nearest)}
    return {**found, **provenance.dataset(settings.store, marks)}


def forget(written: str, *, really: bool) -> dict[str, Any]:
    """What holds a subject. `really`: keep its rows out of all later runs and remove them from the caches."""
    settings, subject = Settings.load(), Subject(written)
    if not settings.store.is_dir():
        raise SourceError(
            f"store {settings.store}",
            found="nothing there",
            expected="the store of earlier runs",
            remedy="run this where models were trained, or set FLYWHEEL_HOME",
        )
    logged = _local(settings.artifact_root)
    with ThreadPoolExecutor(1) as thread:  # MLflow is imported while the rows are looked through
        registered = thread.submit(registry.models, settings)
        found = forgetting.holding(settings.store, subject, [settings.home / "feedback", *([logged] if logged else [])])
        versions = registered.result()
    new = forgetting.forget(settings.store, found) if really else False
    return {
        "subject": written,
        "rows": _rows(found.rows),
        "datasets": [_dataset(held) for held in found.datasets],
        "artifacts": [_name(a) for a in found.derived],
        "caches": _paths(found.caches, settings.store),
        "snapshots": _paths(found.snapshots, settings.store),
        "files": _paths(found.files, settings.home),
        "unread": _paths(found.unread, settings.store),
        "under_way": found.under_way,
        "not_searched": [] if logged else [settings.artifact_root],
        **_models(settings.store, versions, found.datasets),
        "forgotten": really,
        "new": new,
    }


def _models(store: Path, versions: Iterable[Version], held: Sequence[Held]) -> dict[str, list[dict[str, Any]]]:
    """Versions by what the subject means to them.

    `retrain`: rows of the subject were trained or evaluated on, or it cannot be said, as the validated rows are gone;
    `spared`: they were read, and left out before; `unknown`: none of their data is in this store.
    """
    by_mark = {(h.artifact.step, h.artifact.fingerprint): h for h in held}
    found: dict[str, list[dict[str, Any]]] = {"retrain": [], "spared": [], "unknown": []}
    for version in versions:
        marks = {step: mark for step, mark in _lineage(version).items() if step in provenance.DATASETS}
        here = {step for step, mark in marks.items() if (store / step / mark).is_dir()}
        touched = any(mark in by_mark for mark in marks.items())
        last = by_mark.get(("validate", marks.get("validate", "")))
        used = {
            "trained_on": last.number(TRAINED) if last else 0 if "validate" in here else None,
            "evaluated_on": last.number(EVALUATED) if last else 0 if "validate" in here else None,
        }
        line = {"model": version.name, "version": version.version, "aliases": list(version.aliases), **used}
        if not here:
            found["unknown"].append(line)
        elif touched:
            found["spared" if used == {"trained_on": 0, "evaluated_on": 0} else "retrain"].append(line)
    return found


def _dataset(held: Held) -> dict[str, Any]:
    return {**_name(held.artifact), "rows": dict(held.rows), "left_out": held.left, "files": held.files}


def _name(a: Artifact) -> dict[str, str]:
    return {"step": a.step, "fingerprint": a.fingerprint, "recipe": a.recipe}


def _rows(found: Iterable[Found]) -> list[dict[str, Any]]:
    return [asdict(f) for f in found]


def _paths(paths: Iterable[Path], root: Path) -> list[str]:
    return [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths]


def _lineage(version: Version) -> Mapping[str, str]:
    return {name.removeprefix(PREFIX): mark for name, mark in version.tags.items() if name.startswith(PREFIX)}


def _local(uri: str) -> Path | None:
    """The directory that a place for artifacts is on this machine, if it is."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path) if parts.scheme else uri) if parts.scheme in ("", "file") else None
