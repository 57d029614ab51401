"""acquire: a remote source → a snapshot of plain files, from which everything else is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flywheel.recipe_sources import FeedbackSource, ModelSource, RemoteSource, Source
from flywheel.sources import snapshots
from flywheel.sources.base import Named
from infra.settings import Settings, variables
from tasks import policy

FETCHERS = {
    "sql": "flywheel.sources.sql",
    "rest": "flywheel.sources.rest",
    "web": "flywheel.sources.crawl",
    "huggingface": "flywheel.sources.huggingface",
}
"""Source type → the module whose `acquire` fetches it; everything else that is remote is a path on S3."""

Fetch = Callable[[Path, Path | None], Mapping[str, Any]]


@task(**{**policy.options("acquire"), "cache_policy": NO_CACHE, "persist_result": False})
def acquire(settings: Settings, named: Named) -> dict[str, Any]:
    """Fetch one source. Where the same bytes come back, nothing that is made from them is made again."""
    return fetch(settings, named)


def fetch(settings: Settings, named: Named, store: Path | None = None, most: int | None = None) -> dict[str, Any]:
    """Take a snapshot of a remote source, unless `refresh: false` says that the one at hand is enough.

    `store` is where snapshots lie, if not in the store; of a bucket at `most` so many objects are taken.
    """
    store = store or settings.store
    at_hand = snapshots.latest(store, named)
    if at_hand is not None and isinstance(named.source, RemoteSource) and not named.source.refresh:
        return {"name": named.name, "digest": at_hand.name, "changed": False}
    return snapshots.take(store, named, _fetcher(settings, named.source, most))


def _fetcher(settings: Settings, source: Source, most: int | None) -> Fetch:
    if isinstance(source, FeedbackSource):
        from flywheel import feedback

        return lambda into, _: feedback.acquire(source, into, directory=settings.home / "feedback")
    if isinstance(source, ModelSource):
        from tasks import generated

        return lambda into, _: generated.acquire(settings, source, into)
    if source.type in FETCHERS:
        module = import_module(FETCHERS[source.type])
        return lambda into, _: dict(
            module.acquire(source, into, environment=variables(), allowed=settings.allowed_hosts)
        )
    from infra import storage

    path = str(getattr(source, "path", ""))
    return lambda into, previous: storage.mirror(settings, path, into, previous, most)
