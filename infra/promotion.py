"""Promotion: `@champion`, which says what is served, moves from version to version; every move is written down.

A move is made under one lock for each model: a file in FLYWHEEL_HOME, which all processes of this machine and all that
share the directory take. The history is kept in MLflow itself, a tag of the registered model for each move:

    flywheel.move.20260102T030405.678901-1f2e3d4c   {"alias": "champion", "version": 3, "over": 2, "by": ..., ...}

The move is written down first, as pending, and the alias follows. Where another machine, on which the lock has no hold,
has written a move meanwhile, this one is taken back and refused; afterwards alias and history are read again. A move
that was cut off before the alias followed is taken out by the next one; an alias that something else has moved, such as
MLflow's UI, is written down as it was found before the next move.
"""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import get_type_hints

from infra import registry
from infra.errors import RegistryError
from infra.settings import Settings
from infra.tracking import client
from infra.versions import (
    ABSENT,
    CANDIDATE,
    CHALLENGER,
    CHAMPION,
    DECLINED,
    ROLLED_BACK,
    TRAINED,
    Version,
    challenged,
    holder,
    models,
    resolve,
)

PREFIX = "flywheel.move."
GATE, FOUND = "gate", "found"
"""Who moved an alias, where it was no person: the gate; or somebody past this module, such as MLflow's UI."""
_TIME = "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True)
class Move:
    """An alias went from one version to another."""

    alias: str
    version: int
    over: int
    """The version that had it before; 0 for none."""
    by: str
    reason: str
    at: str
    """UTC, ISO 8601."""
    pending: bool = False
    """The alias has not followed yet, or nobody has confirmed it: the move goes on just now, or was cut off."""


def history(settings: Settings, name: str, alias: str = "") -> list[Move]:
    """Every move of a model's aliases, or of one of them, oldest first. Raises RegistryError for an unknown model."""
    from mlflow.exceptions import MlflowException

    try:
        moves = _moves(settings, name).values()
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise RegistryError(
            f"model {name}", found="no such model", expected="a registered one", remedy="see `flywheel models`"
        ) from error
    return [move for move in moves if alias in ("", move.alias)]


def promote(settings: Settings, name: str, version: int, *, by: str, reason: str, over: int | None = None) -> Move:
    """Make a version the champion, once every file of it is verified. Returns the move that made it so.

    `over` is the version that it was compared with (0: there was none); where that is not what it would challenge now,
    the decision is about another champion, and is refused. A person (`by` is not GATE) may promote what was rolled
    back; one who goes back to an older version takes the champion out of service, as `rollback` does. Raises
    RegistryError.
    """
    wanted = resolve(settings, f"{name}/{version}")
    registry.fetch(settings, wanted, settings.home / "served" / f"{name}-{version}")
    with _locked(settings, name):
        wanted, champion = resolve(settings, f"{name}/{version}"), holder(settings, name, CHAMPION)
        if champion is not None and champion.version == version:
            return _settled(settings, wanted, by)
        if over is not None:
            _refuse_another(settings, wanted, champion, over)
        if by != GATE:
            _clear(settings, _alike(settings, wanted))
            if champion is not None and version < champion.version:
                _mark(settings, champion, ROLLED_BACK, by, reason)
        elif why := barred(settings, wanted):
            raise _refused(wanted, why, f"run `flywheel promote {wanted}` to promote it all the same")
        return _crowned(settings, wanted, champion, by, reason)


def rollback(settings: Settings, name: str, *, by: str, reason: str) -> Move:
    """Make the version before the champion the champion again, by the history; once more, the one before that.

    Versions that were deleted are passed over. The one that goes is marked: the gate does not promote its weights
    again. Raises RegistryError.
    """
    champion = resolve(settings, name)
    there = {one.version: one for one in models(settings, name)}
    line = [there[version] for version in _line(settings, name, champion.version) if version in there]
    if len(line) < 2:
        raise _refused(champion, "the history holds no champion before it", f"promote one: `flywheel models {name}`")
    before = line[-2]
    registry.fetch(settings, before, settings.home / "served" / f"{name}-{before.version}")
    with _locked(settings, name):
        now = holder(settings, name, CHAMPION)
        if now is None or now.version != champion.version:
            raise _another(champion, now)
        _mark(settings, champion, ROLLED_BACK, by, reason)
        _clear(settings, [before])
        return _crowned(settings, before, champion, by, reason)


def place(settings: Settings, version: Version, alias: str, reason: str) -> None:
    """Give a version `@candidate` or `@challenger`; nothing is served by them."""
    with _locked(settings, version.name):
        held = holder(settings, version.name, alias)
        if held is None or held.version != version.version:
            _move(settings, version.name, _planned(alias, version, held, GATE, reason))


def decline(settings: Settings, name: str, version: int, *, by: str, reason: str) -> None:
    """A person does not let a candidate in: it loses `@candidate`, and the gate does not put it forward again.

    Raises RegistryError, also for the champion: that is served already, and `rollback` is what takes it out.
    """
    with _locked(settings, name):
        wanted = resolve(settings, f"{name}/{version}")
        if CHAMPION in wanted.aliases:
            raise RegistryError(
                f"declining {wanted}",
                found=f"it is @{CHAMPION}, and served",
                expected="a version that is not served",
                remedy=f"go back to the champion before it: `flywheel rollback {name}`",
            )
        _mark(settings, wanted, DECLINED, by, reason)
        _dismiss(settings, wanted, CANDIDATE)


def barred(settings: Settings, version: Version) -> str:
    """Why the gate may not promote a version: a person has rolled back, or declined, these weights. Empty if it may."""
    words = {ROLLED_BACK: "rolled back", DECLINED: "declined"}
    for one in _alike(settings, version):
        for tag, verb in words.items():
            if tag in one.tags:
                return f"version {one.version} with these weights was {verb}: {one.tags[tag]}"
    return ""


# ---------------------------------------------------------------- a move


def _settled(settings: Settings, version: Version, by: str) -> Move:
    """What made the champion what it is; where that was nobody here, it is written down as found, without a reason."""
    before = _tidied(settings, version.name, CHAMPION, version.version)
    last = _newest(before, CHAMPION)
    _dismiss(settings, version)
    if by != GATE:
        _clear(settings, _alike(settings, version))
    if last is not None and last.version == version.version:
        return last
    return _found(settings, version.name, CHAMPION, version.version, before)[1]


def _crowned(settings: Settings, version: Version, champion: Version | None, by: str, reason: str) -> Move:
    done = _move(settings, version.name, _planned(CHAMPION, version, champion, by, reason))
    _dismiss(settings, version)
    return done


def _planned(alias: str, version: Version, held: Version | None, by: str, reason: str) -> Move:
    return Move(alias, version.version, 0 if held is None else held.version, by, reason, "")


def _move(settings: Settings, name: str, wanted: Move) -> Move:
    """Write the move down, move the alias, and look whether both are as they should be."""
    api = client(settings)
    before = _tidied(settings, name, wanted.alias, wanted.over)
    last = _newest(before, wanted.alias)
    if wanted.over and (last is None or last.version != wanted.over):
        before |= dict([_found(settings, name, wanted.alias, wanted.over, before)])
    key, done = _written(settings, name, replace(wanted, pending=True), before)
    now = _moves(settings, name)
    if others := [k for k in now.keys() - before.keys() - {key} if now[k].alias == wanted.alias]:
        api.delete_registered_model_tag(name, key)
        raise _beaten(name, wanted, f"{len(others)} other moves at the same moment")
    registry.set_alias(settings, name, wanted.alias, wanted.version)
    held = holder(settings, name, wanted.alias)
    if held is None or held.version != wanted.version or _newest(_moves(settings, name), wanted.alias) != done:
        raise _beaten(name, wanted, f"@{wanted.alias} is {held or 'gone'} by now")
    return _confirmed(settings, name, key, done)


def _tidied(settings: Settings, name: str, alias: str, held: int) -> dict[str, Move]:
    """The history, where each move of an alias is done: one that was cut off stays if the alias, which version `held`
    has, did follow, and goes if not."""
    moves = _moves(settings, name)
    for key in [key for key, move in moves.items() if move.pending and move.alias == alias]:
        if moves[key].version == held:
            moves[key] = _confirmed(settings, name, key, moves[key])
        else:
            client(settings).delete_registered_model_tag(name, key)
            del moves[key]
    return moves


def _confirmed(settings: Settings, name: str, key: str, move: Move) -> Move:
    done = replace(move, pending=False)
    client(settings).set_registered_model_tag(name, key, json.dumps(asdict(done)))
    return done


def _newest(moves: Mapping[str, Move], alias: str) -> Move | None:
    return next((move for move in reversed(list(moves.values())) if move.alias == alias), None)


def _found(settings: Settings, name: str, alias: str, held: int, before: Mapping[str, Move]) -> tuple[str, Move]:
    """Write down that a version has an alias, by whatever means it got it."""
    last = _newest(before, alias)
    return _written(settings, name, Move(alias, held, last.version if last else 0, FOUND, "", ""), before)


def _written(settings: Settings, name: str, move: Move, before: Mapping[str, Move]) -> tuple[str, Move]:
    """Add a move to the history, later than every other one, whatever the clocks say."""
    now = datetime.now(UTC)
    if before:
        now = max(now, datetime.fromisoformat(max(m.at for m in before.values())) + timedelta(microseconds=1))
    done = replace(move, at=now.isoformat(timespec="microseconds"))
    key = f"{PREFIX}{now.strftime(_TIME)}-{secrets.token_hex(4)}"
    client(settings).set_registered_model_tag(name, key, json.dumps(asdict(done)))
    return key, done


def _moves(settings: Settings, name: str) -> dict[str, Move]:
    """The tag of each move, and the move, oldest first. Tags of others that only begin as these do are left out."""
    tags = client(settings).get_registered_model(name).tags
    read = {key: _read(tags[key]) for key in sorted(tags) if key.startswith(PREFIX)}
    return {key: move for key, move in read.items() if move is not None}


def _read(text: str) -> Move | None:
    """The move that a tag holds; None where it holds something else."""
    try:
        move = Move(**json.loads(text))
        zoned = datetime.fromisoformat(move.at).tzinfo is not None
    except (TypeError, ValueError):
        return None
    typed = all(type(getattr(move, field)) is kind for field, kind in get_type_hints(Move).items())
    return move if zoned and typed else None


def _line(settings: Settings, name: str, champion: int) -> list[int]:
    """The champions that led to this one; a move back cuts off what came after."""
    line: list[int] = []
    for version in (*(m.version for m in history(settings, name, CHAMPION)), champion):
        line = [*line[: line.index(version)], version] if version in line else [*line, version]
    return line


@contextmanager
def _locked(settings: Settings, name: str) -> Iterator[None]:
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / f".aliases-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---------------------------------------------------------------- marks of versions


def _alike(settings: Settings, version: Version) -> list[Version]:
    """A version, and those with the same weights."""
    weights = version.tags.get(TRAINED)
    every = models(settings, version.name)
    return [v for v in every if v.version == version.version or (weights and v.tags.get(TRAINED) == weights)]


def _mark(settings: Settings, version: Version, tag: str, by: str, reason: str) -> None:
    client(settings).set_model_version_tag(version.name, str(version.version), tag, reason or f"by {by}")


def _clear(settings: Settings, versions: Iterable[Version]) -> None:
    """A person wants these after all."""
    for one in versions:
        for tag in (ROLLED_BACK, DECLINED):
            if tag in one.tags:
                client(settings).delete_model_version_tag(one.name, str(one.version), tag)


def _dismiss(settings: Settings, version: Version, *aliases: str) -> None:
    """It waits no longer."""
    for alias in aliases or (CANDIDATE, CHALLENGER):
        if alias in version.aliases:
            client(settings).delete_registered_model_alias(version.name, alias)


# ---------------------------------------------------------------- refusals


def _refuse_another(settings: Settings, version: Version, champion: Version | None, over: int) -> None:
    rival = challenged(settings, champion, version.tags.get(TRAINED, ""))
    if (rival.version if rival else 0) != over:
        raise _another(version, champion, f"compared with {f'version {over}' if over else 'no champion'}")


def _another(version: Version, champion: Version | None, decided: str = "") -> RegistryError:
    now = f"the champion is version {champion.version} by now" if champion else "there is no champion by now"
    return _refused(version, ", and ".join(filter(None, (decided, now))), "run again, to decide on what is served now")


def _refused(version: Version, found: str, remedy: str) -> RegistryError:
    return RegistryError(f"promotion at {version}", found=found, remedy=remedy)


def _beaten(name: str, wanted: Move, found: str) -> RegistryError:
    return RegistryError(
        f"@{wanted.alias} of {name}, moved to version {wanted.version}",
        found=found,
        remedy=f"see `flywheel models {name}`, and run again",
    )
