"""What `flywheel models`, `promote`, `rollback` and `diff` do, and the form that asks a person."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from flywheel import dossier
from infra import promotion, registry, versions
from infra.errors import RegistryError
from infra.promotion import Move
from infra.registry import Version
from infra.settings import Settings


def listing(name: str | None = None) -> dict[str, Any]:
    """Every version of every model, or of one: aliases, the objective's metric, and how it became the champion.

    Raises RegistryError for a name that no model has.
    """
    settings = Settings.load()
    found = registry.models(settings, name)
    if name is not None and not found:
        registry.resolve(settings, name)  # says what there is
    return {
        "models": [
            {"name": model, **_model(settings, model, list(of_it))}
            for model, of_it in groupby(found, key=lambda v: v.name)
        ]
    }


def _model(settings: Settings, name: str, found: Sequence[Version]) -> dict[str, Any]:
    moves = promotion.history(settings, name)
    return {"versions": [_version(v, moves) for v in found], "history": [asdict(move) for move in moves]}


def _version(version: Version, moves: Sequence[Move]) -> dict[str, Any]:
    crowned = [m for m in moves if (m.alias, m.version) == (versions.CHAMPION, version.version)]
    measured = version.tags.get(versions.OBJECTIVE)
    return {
        "version": version.version,
        "aliases": list(version.aliases),
        "objective": json.loads(measured) if measured else None,
        "created": datetime.fromtimestamp(version.created / 1000, UTC).isoformat(timespec="seconds"),
        "promoted": asdict(crowned[-1]) if crowned else None,
        "rolled_back": version.tags.get(versions.ROLLED_BACK, ""),
        "declined": version.tags.get(versions.DECLINED, ""),
    }


def promote(reference: str, reason: str) -> dict[str, Any]:
    """Make `NAME/VERSION` (or `NAME@candidate`) the champion, by the user who asks. `moved` is false where it was that
    already: the move is then the one that made it so. Raises RegistryError."""
    settings = Settings.load()
    version = registry.resolve(settings, reference)
    done = promotion.promote(settings, version.name, version.version, by=_me(), reason=reason)
    return {"model": version.name, "moved": versions.CHAMPION not in version.aliases, **asdict(done)}


def rollback(name: str, reason: str) -> dict[str, Any]:
    """Make the champion before the present one the champion again. Raises RegistryError."""
    return {"model": name, "moved": True, **asdict(promotion.rollback(Settings.load(), name, by=_me(), reason=reason))}


def diff(one: str, other: str) -> dict[str, Any]:
    """What differs between two versions: recipe, data, metrics, packages. Raises RegistryError."""
    settings = Settings.load()
    found = [registry.resolve(settings, reference) for reference in (one, other)]
    files = [registry.read(settings, version, dossier.COMPARED) for version in found]
    sides = [{"name": v.name, "version": v.version, "aliases": list(v.aliases)} for v in found]
    return {"versions": sides, **dossier.differences(*files)}


# ---------------------------------------------------------------- a person in Prefect's UI


def question(reference: str) -> str:
    """What a person should know to decide on a version, Markdown: the gate's reasons, and both sides' metrics."""
    settings = Settings.load()
    version = registry.resolve(settings, reference)
    champion = versions.holder(settings, version.name, versions.CHAMPION)
    files = registry.read(settings, version, [dossier.EVALUATION])
    said: Mapping[str, Any] = json.loads(files.get(dossier.EVALUATION, b"{}"))
    instead = f"instead of version {champion.version}" if champion else "as the first one"
    lines = [f"Shall **{version}** become the champion of {version.name}, {instead}?", ""]
    lines += [f"- {reason['text']}" for reason in said.get("gate", {}).get("reasons", ())]
    lines += ["", "| metric | value | 95 % | champion | better |", "|---|---:|---|---:|---|"]
    theirs = said.get("champion", {}).get("metrics", {})
    for name, m in said.get("metrics", {}).items():
        beside = f"{theirs[name]['value']:.4g}" if name in theirs else ""
        lines.append(f"| {name} | {m['value']:.4g} | {m['low']:.4g} to {m['high']:.4g} | {beside} | {m['better']} |")
    return "\n".join(lines)


def decide(reference: str, *, approve: bool, by: str, reason: str) -> dict[str, Any]:
    """Carry out what a person decided on a candidate. Raises RegistryError where it was compared with a champion that
    is none any more, and for a refusal of what is the champion by now."""
    settings = Settings.load()
    version = registry.resolve(settings, reference)
    done = {"model": version.name, "version": version.version, "by": by, "reason": reason}
    if not approve:
        promotion.decline(settings, version.name, version.version, by=by, reason=reason)
        return {**done, "approved": False}
    if versions.CANDIDATE not in version.aliases and versions.CHAMPION not in version.aliases:
        raise RegistryError(
            f"approval of {version}",
            found="it is no candidate any more",
            expected=f"the version that is @{versions.CANDIDATE} now",
            remedy=f"promote it all the same with `flywheel promote {version}`",
        )
    over = int(version.tags.get(versions.OVER, 0))
    promotion.promote(settings, version.name, version.version, by=by, reason=reason, over=over)
    return {**done, "approved": True}


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"uid {os.getuid()}"
