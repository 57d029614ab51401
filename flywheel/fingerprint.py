"""Fingerprints: what a step is made from, as named ingredients and one hash over them.

An ingredient is a small string under a name that a person understands, so that two fingerprints can be told apart in
words: `recipe:train.max_steps`, `module:flywheel.split`, `package:torch`, `file:stdlib/os.py`, `parent:prepare`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

_NAME = re.compile(r"^Name: *(\S+)", re.MULTILINE)
_MODULE = re.compile(r"^([^/,.\n]+)[^,\n]*\.(?:py|so|pyd),", re.MULTILINE)
"""A line of RECORD: the top of the path of a file that can be imported."""
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a statement has others; no expression imports anything."""

NOT_FOLLOWED = {
    "flywheel.recipe": "its values are ingredients themselves",
    "flywheel.recipe_base": "likewise",
    "flywheel.recipe_sources": "likewise",
    "flywheel.recipe_features": "likewise",
    "flywheel.recipe_models": "likewise",
    "flywheel.recipe_train": "likewise",
    "flywheel.recipe_tune": "likewise",
    "flywheel.recipe_file": "likewise",
    "flywheel.estimate": "says what a training takes, not what it makes",
    "flywheel.speed": "likewise",
    "flywheel.modalities.rooms": "a list of names; the room that is used is an ingredient",
}


def fingerprint(ingredients: Mapping[str, str]) -> str:
    """16 hex digits over all ingredients, in no particular order."""
    text = json.dumps(dict(ingredients), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_values(values: Any, prefix: str) -> dict[str, str]:
    """One ingredient for each leaf of a JSON value: `recipe:train.max_steps` → `900`."""
    if isinstance(values, Mapping):
        leaves: dict[str, str] = {}
        for key, value in values.items():
            leaves |= of_values(value, f"{prefix}.{key}")
        return leaves
    return {prefix: json.dumps(values, sort_keys=True)}


def of_source(task: str, modules: Iterable[str]) -> dict[str, str]:
    """The source of a task module and of every project module it can reach, and the versions of the libraries.

    Only imports into the core, and into the packages that `modules` name, are followed: what a task does around the
    core (logging, uploading) does not change the result.
    """
    packages = {"flywheel", *(m.partition(".")[0] for m in modules)}
    ingredients, libraries = {"package:python": ".".join(map(str, sys.version_info[:3]))}, set()
    queue, seen = [task, *modules], set()
    while queue:
        name = queue.pop()
        if name in seen or name in NOT_FOLLOWED:
            continue
        seen.add(name)
        source = _source(name)
        if source is None:
            continue
        ingredients[f"module:{name}"] = hashlib.sha256(source).hexdigest()[:16]
        for target in _imported(source):
            top = target.partition(".")[0]
            if top in packages:
                queue.append(target)
            elif name != task:
                libraries.add(top)
    for distribution in sorted({d for name in libraries for d in _distributions().get(name, ())}):
        # `2.13.0+cpu` and `2.13.0+cu130` are one version: a lifecycle without a GPU may train on a worker with one.
        ingredients[f"package:{distribution}"] = metadata.version(distribution).partition("+")[0]
    return ingredients


def of_files(files: Mapping[str, str]) -> dict[str, str]:
    """One ingredient for each input file, from its name and sha256."""
    return {f"file:{name}": digest for name, digest in files.items()}


@lru_cache
def _distributions() -> Mapping[str, set[str]]:
    """Import name → the installed distributions that provide it; the standard library has none.

    What `metadata.packages_distributions` finds, in a third of its time: only what is needed of the files is parsed.
    """
    found = defaultdict[str, set[str]](set)
    for installed in metadata.distributions():
        name = _NAME.search(installed.read_text("METADATA") or installed.read_text("PKG-INFO") or "")
        declared = (installed.read_text("top_level.txt") or "").split()
        for top in declared or set(_MODULE.findall(installed.read_text("RECORD") or "")):
            found[top] |= {name[1]} if name else set()
    return found


def _source(name: str) -> bytes | None:
    """The source of a project module, or of a package; None where there is no such module."""
    base = ROOT.joinpath(*name.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return path.read_bytes() if path.is_file() else None


@lru_cache
def _imported(source: bytes) -> tuple[str, ...]:
    """The names that a module imports, also inside functions."""
    return tuple(dict.fromkeys(_imports(ast.parse(source))))


def _imports(node: ast.AST) -> Iterator[str]:
    """Names imported in a statement or below it; what stands under `if TYPE_CHECKING:` never runs."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for block in _BLOCKS:
        for child in getattr(node, block, ()):
            yield from _imports(child)
