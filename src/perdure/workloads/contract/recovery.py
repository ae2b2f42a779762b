"""What a workload does so that its images and its log become data again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from perdure.model.drills import DrillStep
from perdure.model.logs import LogSegment, StoredSegment
from perdure.model.points import DataSource
from perdure.model.positions import Position
from perdure.workloads.contract.description import Capabilities, WorkloadInfo
from perdure.workloads.contract.sessions import Session

__all__ = [
    "Arranged",
    "DirectoryWorkload",
    "DrilledWorkload",
    "ImageWorkload",
    "LocatingWorkload",
    "LogReader",
    "RestoredItem",
    "SpreadingWorkload",
    "StartedWorkload",
    "Verification",
]


@dataclass(frozen=True, slots=True)
class Verification:
    """What the engine's own means say about a restored copy."""

    passed: bool
    means: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoredItem:
    """One line of ``browse``."""

    name: str
    kind: str
    size: int
    details: str = ""


class LogReader(Protocol):
    """How a restore reads stored segments and their payload."""

    def segments(self) -> Iterable[StoredSegment]:
        """The segments to apply, in order."""
        ...

    def blocks(self, segment: StoredSegment) -> Iterable[bytes]:
        """The payload blocks of one segment, in order."""
        ...


class ImageWorkload(Protocol):
    """A database engine."""

    kind: str
    capabilities: Capabilities

    def discover(self, location: str) -> WorkloadInfo:
        """Look at a location without changing anything.

        Raises:
            SourceUnusable: It is missing, not of this kind, or not in a state that can be protected.
        """
        ...

    def prepare(self, location: str) -> str:
        """Make the source protectable where that takes a change (``--prepare``); returns what was done."""
        ...

    def open(self, source: DataSource) -> Session:
        """Open a session.

        Raises:
            SourceUnusable: As ``discover``.
            Refused: Another perdure process holds this source.
        """
        ...

    def target_paths(self, names: Sequence[str], target: Path) -> dict[str, Path]:
        """Where each file of an image goes when it is recovered to ``target``."""
        ...

    def live_paths(self, names: Sequence[str], location: str) -> dict[str, Path]:
        """Where each file of an image lives, if it is a plain file that may be read at any time; else left out."""
        ...

    def in_place_target(self, location: str) -> Path:
        """The path that a recovery onto the source itself replaces.

        Raises:
            Refused: The source is in use; the message says by whom, as far as that can be known.
        """
        ...

    def apply_log(self, paths: Mapping[str, Path], log: LogReader, upto: Position) -> None:
        """Roll restored files forward to ``upto``, which is one of the marks of the log (or before all of it)."""
        ...

    def join_log(self, log: LogReader) -> LogSegment:
        """Make one segment of neighbours of one generation, in order, with every place that they hold."""
        ...

    def verify(self, paths: Mapping[str, Path], thorough: bool) -> Verification:
        """Check restored files by the engine's own means."""
        ...

    def items(self, paths: Mapping[str, Path], within: str) -> list[RestoredItem]:
        """List what restored files hold (tables and their rows)."""
        ...


@dataclass(frozen=True, slots=True)
class Arranged:
    """What became of a restored directory.

    Args:
        position: The position that it shows if that is not the one that was asked for.
        time_ns: The moment of that position; 0 if it is the one that was asked for.
        notes: What a person should know or do next.
        beside: Directories that were made outside of it; they go when the recovery fails after all.
    """

    position: Position | None = None
    time_ns: int = 0
    notes: tuple[str, ...] = ()
    beside: tuple[Path, ...] = ()


@runtime_checkable
class DirectoryWorkload(Protocol):
    """An image workload whose files are recovered together into a directory of their own.

    ``target_paths`` then names paths in the directory ``target``, which exists and is empty, and log that is applied
    may make more files there.

    Attributes:
        recovery_options: Names of the options that a recovery may have.
    """

    recovery_options: frozenset[str]

    def arrange(
        self, source: DataSource, directory: Path, upto: Position | None, options: Mapping[str, str]
    ) -> Arranged:
        """Bring a restored directory into the form in which the engine takes it.

        Args:
            source: Whose directory it is.
            directory: What was restored, under a name that is not its last.
            upto: The position that it shows.
            options: How, see ``recovery_options``.

        Raises:
            Refused, Damaged: It cannot be; nothing is left of it then.
        """
        ...

    def in_place_folder(self, source: DataSource) -> Path:
        """The folder beside the source's own files in which it is restored before it takes their place.

        Raises:
            Refused: The source is in use.
        """
        ...

    def take_place(self, source: DataSource, directory: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """Put a restored directory in the place of the source's own files, which are kept.

        Returns:
            Where the restored files are, and what a person should know.

        Raises:
            Refused: The source came into use meanwhile.
        """
        ...


@runtime_checkable
class SpreadingWorkload(Protocol):
    """An image workload whose image is one file of the pages of many: a recovery spreads them into a directory.

    ``target_paths`` names the directory for every file of the image.
    """

    def spread(
        self, content: Callable[[str], bytes], directory: Path
    ) -> AbstractContextManager[Mapping[str, Callable[[int, memoryview], None]]]:
        """Make the files, then take their bytes.

        Args:
            content: Reads one file of the image whole; for small ones.
            directory: Where to; it exists and is empty.

        Returns:
            For the names of large files of the image what takes their bytes, with the offset, from several threads.
        """
        ...


@runtime_checkable
class StartedWorkload(Protocol):
    """A directory workload that can start its engine on what was recovered (recovery option ``start``)."""

    def start(self, directory: Path) -> tuple[str, ...]:
        """Start it and wait until it is in service; returns what a person should know.

        Raises:
            Partial: It does not start.
        """
        ...


@runtime_checkable
class LocatingWorkload(Protocol):
    """An image workload in whose log a person may name places in the engine's own words."""

    def locate(self, kind: str, text: str, segments: Iterable[StoredSegment]) -> Position:
        """Find a place in the stored log, which is given oldest first.

        Raises:
            BadInput: There is no such kind of place, or the text is none.
            NotFound: It is not in the log.
        """
        ...


@runtime_checkable
class DrilledWorkload(Protocol):
    """An image workload that puts a recovered copy to use in a drill, and runs the user's own checks on it."""

    def drill(self, paths: Mapping[str, Path], checks: Sequence[str]) -> Iterator[DrillStep]:
        """Bring a scratch copy into service, look at it, and leave nothing running.

        Args:
            paths: The recovered files, as :meth:`ImageWorkload.target_paths` named them. They may be changed.
            checks: The user's checks, in the workload's language.
        """
        ...
