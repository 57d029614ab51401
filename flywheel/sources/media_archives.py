"""Pictures and recordings in an archive, with the tables and texts about them, laid out to be looked up by name."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from flywheel.sources import archives
from flywheel.sources.listing import NEVER, Entry
from flywheel.sources.media_notes import MediaFile, directory, is_aid, stem
from flywheel.sources.parsed import Bad


@contextmanager
def unpacked(archive: Entry, is_medium: Callable[[str], bool]) -> Iterator[Unpacked]:
    """The members of an archive for the time of the context."""
    found = Unpacked(archive, is_medium)
    with TemporaryDirectory() as scratch:
        try:
            found.fill(Path(scratch))
            yield found
        finally:
            for path in found.files.values():  # not left to the directory, which removes by names that are relative
                path.unlink()


class Unpacked:
    """The members of an archive that matter, unpacked one after the other under numbers into a directory.

    Left out as Bad: what `archives.unpack` finds unsafe, damaged or too large, and `ambiguous_name` (there before, or
    of more than 500 characters). Other members, hidden ones included, are no concern of ours.
    """

    def __init__(self, archive: Entry, is_medium: Callable[[str], bool]) -> None:
        self._archive, self._is_medium = archive, is_medium
        self.files: dict[str, Path] = {}
        """Name in the archive → where it lies now."""
        self.media: dict[str, MediaFile] = {}
        """The pictures or recordings among them."""
        self.stems: set[str] = set()
        """Their names without endings."""
        self.bad: list[Bad] = []

    def fill(self, scratch: Path) -> None:
        for found in archives.unpack(self._archive.path, self._wanted):
            if isinstance(found, Bad):
                if found.reason != "unknown_format":
                    self.bad.append(found)
                continue
            name = self._named(found[0])
            if not self._wanted(name) or name in self.files:
                self.bad.append(Bad(found[0], "ambiguous_name", "there before, or too long"))
            elif not _hidden(name):
                self.files[name] = found[1].replace(scratch / f"{len(self.files)}{found[1].suffix}")
        self.media = {name: self._file(name) for name in self.files if self._is_medium(name)}
        self.stems = set(map(stem, self.media))

    def place(self, name: str) -> str:
        """Where a member stands in its source; of a file that is packed alone, the archive itself."""
        alone = archives.archive_kind(self._archive.name) == "gzip"
        return self._archive.name if alone else f"{self._archive.name}:{name}"

    def _wanted(self, name: str) -> bool:
        return self._is_medium(name) or is_aid(name)

    def _named(self, member: str) -> str:
        """A member's name as it would be after unpacking."""
        name = posixpath.normpath(member) if member else PurePosixPath(self._archive.name).name
        return stem(name) if archives.archive_kind(name) == "gzip" else name

    def _file(self, name: str) -> MediaFile:
        text = self.files.get(f"{stem(name)}.txt")
        above = [directory(self._archive.name), directory(name)]
        parts = [part for at in above for part in at.split("/") if part and not archives.archive_kind(part)]
        return MediaFile(self.files[name], name, self.place(name), parts[-1] if parts else "", text)


def _hidden(name: str) -> bool:
    return any(part in NEVER or part.startswith(".") for part in name.split("/"))
