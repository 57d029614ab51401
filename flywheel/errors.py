"""Every error a user can meet, each saying the thing, what was found, what was expected and the remedy.

FlywheelError
├── RecipeError        a recipe that cannot be read or does not fit the schema
├── SourceError        data that cannot be read at all (a bad row is quarantined instead)
│   └── FetchError     an address that may not be asked or gives no usable answer
├── ValidationFailed   a suite of expectations that the data does not meet
├── ArtifactError      an artifact that is missing, damaged or held by another run
├── WorkerError        work on a shard of data that failed in a worker process
├── SandboxError       no sandbox for generated code on this machine
├── TrainingError      a training run that cannot start or went wrong
├── ExportError        no precision of the model could be proven
├── RegistryError      a model, version or alias that the registry does not hold
└── ServingError       a server that cannot start or does not answer
"""

from __future__ import annotations

import errno
from collections.abc import Iterator


class FlywheelError(Exception):
    """Base of the tree. `remedy` is one imperative sentence; it may be empty."""

    def __init__(self, thing: str, *, found: str = "", expected: str = "", remedy: str = "") -> None:
        self.thing, self.found, self.expected, self.remedy = thing, found, expected, remedy
        super().__init__(thing, found, expected, remedy)

    def __str__(self) -> str:
        lines = [self.thing]
        if self.found:
            lines.append(f"  found:    {self.found}")
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.remedy:
            lines.append(f"  remedy:   {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.thing, self.found, self.expected, self.remedy)


def _rebuild(cls: type[FlywheelError], thing: str, found: str, expected: str, remedy: str) -> FlywheelError:
    return cls(thing, found=found, expected=expected, remedy=remedy)


class RecipeError(FlywheelError):
    """A recipe that cannot be read or does not fit the schema."""


class SourceError(FlywheelError):
    """Data that cannot be read at all."""


class FetchError(SourceError):
    """An address that may not be asked or gives no usable answer. `reason` is one snake_case word, for counting."""

    def __init__(
        self, thing: str, *, reason: str = "unreachable", found: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(thing, found=found, expected=expected, remedy=remedy)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"reason": self.reason})


class ValidationFailed(FlywheelError):
    """A suite of expectations that the data does not meet."""


class ArtifactError(FlywheelError):
    """An artifact that is missing, damaged or held by another run."""


class WorkerError(FlywheelError):
    """Work on a shard of data that failed in a worker process."""


class SandboxError(FlywheelError):
    """No sandbox for generated code on this machine."""


class TrainingError(FlywheelError):
    """A training run that cannot start or went wrong."""


class ExportError(FlywheelError):
    """No precision of the model could be proven."""


class RegistryError(FlywheelError):
    """A model, version or alias that the registry does not hold."""


class ServingError(FlywheelError):
    """A server that cannot start or does not answer."""


def disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full, or came up while such a one was handled."""
    return any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
