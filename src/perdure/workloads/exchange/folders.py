"""Databases and log streams in a store's folder, told by their headers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perdure.ese.errors import EseDamaged, EseUnsupported, NotAnEseFile
from perdure.ese.headers.database import DatabaseHeader, read_database_header
from perdure.ese.headers.kinds import FileKind, kind_by_name
from perdure.ese.headers.log import LOG_HEADER_SIZE, LogHeader, read_log_header
from perdure.ese.logs.files import log_name
from perdure.ese.structures import Signature

__all__ = ["FoundDatabase", "LogFolder", "databases_in", "find_stream", "log_header", "read_header"]

_HEAD = 1 << 16
_SKIPPED = ("_restoredlogs",)
_EIGHT, _FIVE = 8, 5


@dataclass(frozen=True, slots=True)
class FoundDatabase:
    """A database file.

    Args:
        path: Where it lies.
        header: Its header, ``None`` if that cannot be read.
        problem: Why not; empty if it can.
    """

    path: Path
    header: DatabaseHeader | None
    problem: str = ""

    @property
    def name(self) -> str:
        return self.path.stem


def databases_in(folder: Path) -> list[FoundDatabase]:
    """Every ``.edb`` file in a folder and below it, by path."""
    return [_found(path) for path in sorted(_files(folder)) if kind_by_name(path.name) is FileKind.DATABASE]


def read_header(path: Path) -> DatabaseHeader:
    """The header of a database that may be in use.

    Raises:
        EseDamaged, NotAnEseFile, EseUnsupported: It has none that can be read.
        OSError: The file cannot be read.
    """
    with path.open("rb") as opened:
        return read_database_header(opened.read(_HEAD), path.name)[0]


def log_header(path: Path) -> LogHeader | None:
    """The header of a log, ``None`` if there is no file or its header is not whole (yet)."""
    try:
        with path.open("rb") as opened:
            return read_log_header(opened.read(LOG_HEADER_SIZE), path.name)
    except (FileNotFoundError, EseDamaged, EseUnsupported):
        return None


@dataclass(frozen=True, slots=True)
class LogFolder:
    """The logs of one stream in one folder.

    Args:
        folder: Where they lie.
        base: The first three characters of their names, as they are written.
        digits: Digits of the number in their names.
        suffix: ``.log`` or ``.jtx``, as it is written.
    """

    folder: Path
    base: str
    digits: int = _EIGHT
    suffix: str = ".log"

    @property
    def current(self) -> Path:
        """The log that is being written; may not be there."""
        return self.folder / f"{self.base}{self.suffix}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.base}.chk"

    def closed(self, generation: int) -> Path:
        """A complete log; may not be there."""
        return self.folder / f"{self.base}{generation:0{self.digits}X}{self.suffix}"

    def holds(self, generation: int) -> bool:
        """Whether a complete log is there."""
        return self.closed(generation).exists()

    def current_header(self) -> LogHeader | None:
        """The header of the log that is being written."""
        return log_header(self.current)

    def generations(self) -> list[int]:
        """The complete logs that are there, ascending."""
        found = []
        for entry in os.scandir(self.folder):
            name = log_name(entry.name)
            if name.generation is not None and name.base == self.base.upper():
                found.append(name.generation)
        return sorted(found)


def find_stream(folder: Path, stream: Signature) -> LogFolder | None:
    """The logs of a stream in a folder and below it; of several places the one with the newest log."""
    best: tuple[int, LogFolder] | None = None
    for logs, numbers in _log_folders(folder):
        header = logs.current_header()
        if header is None and numbers:
            header = log_header(logs.closed(max(numbers)))
        if header is not None and header.signature == stream and (best is None or header.generation > best[0]):
            best = header.generation, logs
    return None if best is None else best[1]


def _log_folders(folder: Path) -> Iterator[tuple[LogFolder, list[int]]]:
    """Every place with logs of one base name, and the numbers of the complete ones."""
    groups: dict[tuple[Path, str, str], list[tuple[int, int]]] = {}
    for path in _files(folder):
        name = log_name(path.name)
        if not name.base or (kind_by_name(path.name) is not FileKind.LOG and path.suffix.lower() != ".jtx"):
            continue
        group = groups.setdefault((path.parent, path.name[:3], path.suffix), [])
        if name.generation is not None:
            group.append((name.generation, len(path.stem) - 3))
    for (place, base, suffix), numbers in sorted(groups.items()):
        digits = max(numbers)[1] if numbers else _EIGHT
        yield LogFolder(place, base, digits, suffix), [number for number, _ in numbers]


def _files(folder: Path) -> Iterator[Path]:
    """All files, but for those in perdure's own folders and in logs restored for a recovery database."""
    for place, below, names in os.walk(folder):
        below[:] = [
            name
            for name in below
            if not name.startswith(".perdure")
            and name.lower() not in _SKIPPED
            and ".before-recovery-" not in name
            and not name.endswith(".perdure-partial")
        ]
        for name in names:
            yield Path(place) / name


def _found(path: Path) -> FoundDatabase:
    try:
        return FoundDatabase(path, read_header(path))
    except (EseDamaged, NotAnEseFile, EseUnsupported) as error:
        return FoundDatabase(path, None, error.message)
    except OSError as error:
        return FoundDatabase(path, None, f"{path} cannot be read: {error.strerror or error}")
