"""Rows from folders of pictures (`imagefolder`) and of recordings (`audiofolder`), and from archives of them.

Each file is decoded to see that it is sound, and kept as it is. What is known of it comes from tables, texts, names and
directories around it (`flywheel.sources.media_notes`). An archive is a world of its own: what stands in it describes
what stands in it, as if it were unpacked into a directory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from flywheel.media import Undecodable, check_audio, decode_image
from flywheel.recipe_sources import AudioFolderSource, ImageFolderSource
from flywheel.record import Dropped, Outcome, Quarantined, Record, content, provenance_id
from flywheel.sources import archives
from flywheel.sources.listing import READ, Entry, digest, listing, missing, nothing, printable
from flywheel.sources.media_archives import unpacked
from flywheel.sources.media_metadata import TABLES
from flywheel.sources.media_notes import (
    MediaFile,
    Notes,
    compiled,
    directory,
    is_aid,
    is_table,
    lineage,
    stem,
    unmet,
    within,
)


@dataclass(frozen=True)
class Medium:
    """What the two kinds of folders differ in."""

    column: str
    endings: tuple[str, ...]
    check: Callable[[bytes], object]
    """Raises Undecodable."""


MEDIA = {
    "imagefolder": Medium("image", (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"), decode_image),
    "audiofolder": Medium("audio", (".wav", ".flac", ".ogg", ".opus", ".mp3"), check_audio),
}


def reader(source: ImageFolderSource | AudioFolderSource, name: str, root: Path | None = None) -> MediaReader:
    """The reader of a source of type `imagefolder` or `audiofolder`; `root` is where it was fetched to."""
    return MediaReader(source, name, root)


class MediaReader:
    """One row for each file, or for each row of metadata about it; `group` is the file, unless something names another.

    Files with other endings are no concern of ours. Dropped: `too_large`, `unpaired` (a `name.txt` beside nothing),
    `empty` (an archive without any of ours). Quarantined: `corrupt_image` or `corrupt_audio`, `bomb`, `missing_file`
    (described, but not there), `no_metadata` (others are described, this one is not), `no_match` (of `pattern`),
    `undecodable` or `too_long` (for the text beside it), what `read_table` cannot read, and what `Unpacked` leaves out.
    """

    def __init__(self, source: ImageFolderSource | AudioFolderSource, name: str, root: Path | None) -> None:
        self.source, self.name, self.medium = source, name, MEDIA[source.type]
        path = root if root is not None else Path(source.path).expanduser()
        if not path.is_dir() and not (path.is_file() and self._is_archive(path.name)):
            raise missing(source.path, path, f"a directory or an archive with {_endings(self.medium)} files")
        self.root = path.resolve()
        self.pattern = None if source.pattern is None else compiled(source.pattern)
        self.notes = Notes(lambda table: self._usable(self.root / table), self.pattern)

    def entries(self) -> list[Entry]:
        """Files, tables, texts and archives. `context` marks the state of what else a file's rows depend on, so that a
        change there is seen: tables and the text beside it; for a table, the names of all files.
        """
        if self.root.is_file():
            return [self._packed(Entry(self.root, printable(self.root.name), READ))]
        media, aids = self._media(), listing(self.root, lambda name: READ if is_aid(name) else None)
        packed = listing(self.root, lambda name: READ if self._is_archive(name) else None)
        if not media and not packed:
            raise nothing(self.source.path, _endings(self.medium))
        stems, names = {stem(entry.name) for entry in media}, _mark(entry.name for entry in media)
        states = {entry.name: digest(entry) for entry in aids if entry.fate == READ}
        tables = {at: _above(at, states) for at in {directory(entry.name) for entry in media}}
        found = [
            replace(e, context=_mark([*tables[directory(e.name)], states.get(f"{stem(e.name)}.txt", "")]))
            for e in media
        ]
        for entry in aids:
            if is_table(entry.name):
                found.append(replace(entry, context=names))
            else:
                paired = stem(entry.name) in stems or entry.fate != READ
                found.append(entry if paired else replace(entry, fate="unpaired"))
        return sorted([*found, *map(self._packed, packed)], key=lambda entry: entry.name)

    def read(self, entry: Entry) -> Iterator[Outcome]:
        if is_table(entry.name):
            below = within(directory(entry.name), ("",))[0]
            names = {found.name for found in self._media() if found.name.startswith(below)}
            yield from self._unmet(entry.path, entry.name, entry.name, names)
        elif self._is_medium(entry.name):
            label = PurePosixPath(directory(entry.name)).name
            text = self._usable(entry.path.with_suffix(".txt"))
            yield from self._rows(MediaFile(entry.path, entry.name, entry.name, label, text), self.notes)
        elif self._is_archive(entry.name):
            yield from self._archived(entry)

    # ------------------------------------------------------------ which files

    def _media(self) -> list[Entry]:
        return listing(self.root, lambda name: READ if self._is_medium(name) else None, self.source.max_bytes)

    def _is_medium(self, name: str) -> bool:
        return name.lower().endswith(self.medium.endings) and not PurePosixPath(name).name.startswith(".")

    def _is_archive(self, name: str) -> bool:
        """Whether a file may pack some of ours; one file alone (`1.png.gz`) says what it is."""
        hidden = PurePosixPath(name).name.startswith(".")
        kind = archives.archive_kind(name)
        return not hidden and (kind in ("zip", "tar") or (kind == "gzip" and self._is_medium(stem(name))))

    def _packed(self, archive: Entry) -> Entry:
        """What becomes of its members depends on their size."""
        return replace(archive, context=str(self.source.max_bytes))

    def _usable(self, path: Path) -> Path | None:
        """A table or text, if it is there and does not lead outside, as the listing judges it."""
        return path if path.is_file() and path.resolve().is_relative_to(self.root) else None

    # ------------------------------------------------------------ rows

    def _rows(self, file: MediaFile, notes: Notes) -> Iterator[Outcome]:
        try:
            raw = file.path.read_bytes()
        except OSError as error:
            yield self._quarantined(file.place, b"", "unreadable", str(error.strerror))
            return
        try:
            self.medium.check(raw)
            described = notes.of(file)
        except Undecodable as error:
            yield self._quarantined(file.place, raw, error.reason, error.detail)
            return
        for number, known in enumerate(described, 1):
            cells = dict(known)
            origin = {
                "source": self.name,
                "path": file.place,
                "license": self.source.license,
                "size": len(raw),
                "group": cells.pop("group", file.place),
            }
            row = Record("", origin=origin, **{self.medium.column: raw}, **cells)  # type: ignore[arg-type]
            position = file.place if number == 1 else f"{file.place}#{number}"
            yield row.with_fields(id=provenance_id(self.name, position, content(row)))

    def _archived(self, archive: Entry) -> Iterator[Outcome]:
        """What becomes of the members of an archive, in the order of their names."""
        with unpacked(archive, self._is_medium) as found:
            for bad in found.bad:
                place = f"{archive.name}:{bad.position}" if bad.position else archive.name
                yield self._quarantined(place, b"", bad.reason, bad.detail)
            notes = Notes(found.files.get, self.pattern)
            for name, path in sorted(found.files.items()):
                place = found.place(name)
                if is_table(name):
                    yield from self._unmet(path, name, place, found.media)
                elif name not in found.media:
                    if stem(name) not in found.stems:
                        yield self._dropped(place, "unpaired")
                elif path.stat().st_size > self.source.max_bytes:
                    yield self._dropped(place, "too_large")
                else:
                    yield from self._rows(found.media[name], notes)
            if not found.files and not found.bad:
                yield self._dropped(archive.name, "empty")

    def _unmet(self, path: Path, name: str, place: str, names: Collection[str]) -> Iterator[Quarantined]:
        """Rows of a table that lead to no file, or could not be read."""
        for bad in unmet(path, name, names):
            yield self._quarantined(f"{place}:{bad.position}", b"", bad.reason, bad.detail)

    def _dropped(self, place: str, reason: str) -> Dropped:
        return Dropped(provenance_id(self.name, place, b""), reason, place, self.name)

    def _quarantined(self, place: str, raw: bytes, reason: str, detail: str) -> Quarantined:
        return Quarantined(provenance_id(self.name, place, raw), reason, place, self.name, detail)


def _above(at: str, states: Mapping[str, str]) -> list[str]:
    """The states of the tables that may describe files of a directory."""
    return [states[name] for above in lineage(at) for name in within(above, TABLES) if name in states]


def _endings(medium: Medium) -> str:
    return ", ".join(medium.endings)


def _mark(state: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(state).encode()).hexdigest()[:16]
