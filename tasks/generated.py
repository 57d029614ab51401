"""acquire, for sources of type `model`: a model of the registry writes the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from flywheel.errors import SourceError
from flywheel.recipe_sources import ModelSource
from flywheel.runtimes.base import Runtime
from flywheel.sources import generated
from flywheel.sources.rolling import write_lines
from infra.settings import Settings


def acquire(settings: Settings, source: ModelSource, into: Path) -> dict[str, Any]:
    """Write `prompt` and `completion` into `into`/rows-00000.jsonl and so on; returns `rows`, `files` and `version`.

    Raises RegistryError for a model that is not there, SourceError for one that writes no text or a prompt that does
    not fit into its context, RecipeError for templates and `generation` that mean nothing.
    """
    from flywheel.runtimes.bundle import open_bundle
    from infra import registry

    version = registry.resolve(settings, source.model)
    bundle = registry.fetch(settings, version, settings.home / "served" / f"{version.name}-{version.version}")
    complete = completer(source, open_bundle(bundle))
    return {**write_lines(into, generated.rows(source, complete)), "version": version.version}


def completer(source: ModelSource, runtime: Runtime) -> Callable[[Sequence[str]], list[str]]:
    """Completes prompts; the i-th of all is drawn with seed + i, so that a larger `count` only adds rows."""
    if runtime.kind != "text":
        raise SourceError(
            f"model {source.model}",
            found=f"a model that makes {runtime.kind}",
            expected="one that writes text",
            remedy="name another model",
        )
    sampling, numbers = generated.sampling(source), count()

    def one(prompt: str) -> str:
        room = runtime.context - runtime.count(prompt)
        if not 0 < room < runtime.context:
            raise SourceError(
                f"model {source.model}",
                found=f"a prompt of {runtime.context - room} tokens: {prompt[:80]!r}",
                expected=f"1 to {runtime.context - 1} tokens",
                remedy="shorten `prompts`, or name a model with a larger context",
            )
        most = min(sampling.max_new_tokens, room)
        drawn = replace(sampling, max_new_tokens=most, seed=sampling.seed + next(numbers))
        return "".join(chunk.text for chunk in runtime.stream(prompt, drawn))

    return lambda prompts: [one(prompt) for prompt in prompts]
