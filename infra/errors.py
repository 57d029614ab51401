"""Errors of the outside world, worded like those of the core: the thing, what was found, what was expected, the remedy.

InfraError
├── SettingsError     an environment variable that cannot be used
├── ExpectationError  an expectation on data that does not exist or cannot be made from its arguments
├── TrackingError     a tracking server or run that cannot be reached or written
├── StorageError      an object store that cannot be read
│   └── MissingError   a bucket, object, credential or right that is not there: to ask again does not help
└── RegistryError     a model, version or alias that the registry does not hold, or whose files do not match

`infra` and the core do not know each other; tasks translate, and the four fields have the same names on both sides.
"""

from __future__ import annotations


class InfraError(Exception):
    """Base of the tree. `remedy` is one imperative sentence; it may be empty."""

    def __init__(self, thing: str, *, found: str = "", expected: str = "", remedy: str = "") -> None:
        self.thing, self.found, self.expected, self.remedy = thing, found, expected, remedy
        super().__init__(thing, found, expected, remedy)

    def __str__(self) -> str:
        parts = {"found:   ": self.found, "expected:": self.expected, "remedy:  ": self.remedy}
        return "\n".join([self.thing, *(f"  {label} {text}" for label, text in parts.items() if text)])

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.thing, self.found, self.expected, self.remedy)


def _rebuild(cls: type[InfraError], thing: str, found: str, expected: str, remedy: str) -> InfraError:
    return cls(thing, found=found, expected=expected, remedy=remedy)


class SettingsError(InfraError):
    """An environment variable that cannot be used."""


class ExpectationError(InfraError):
    """An expectation that does not exist or cannot be made from its arguments."""


class TrackingError(InfraError):
    """A tracking server or run that cannot be reached or written."""


class StorageError(InfraError):
    """An object store that cannot be read."""


class MissingError(StorageError):
    """A bucket, object, credential or right that is not there."""


class RegistryError(InfraError):
    """A model, version or alias that the registry does not hold, or whose files do not match."""
