"""The workload contract: what a kind of data source must offer.

There are two shapes. An *image workload* (a database) is a set of files that change by pages, joined
by a transaction log: it opens a :class:`Session` on the live source. A *folder workload* is a tree
of files: it walks it (:class:`FolderWorkload`). A workload never sees a pool; it gets small protocols
(:class:`ContentSink`, :class:`ListingSource`) for the little it needs of one.

What a workload cannot do it says in its :class:`Capabilities`; callers refuse with ``why_not``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from perdure.model.drills import DrillStep
from perdure.model.entries import Entry
from perdure.model.logs import LogEnd, LogSegment, StoredSegment
from perdure.model.points import DataSource, StreamRef
from perdure.model.positions import Position
from perdure.model.truncation import TruncationLedger

__all__ = [
    "AdvisingWorkload",
    "Arranged",
    "BackupSession",
    "BaseImage",
    "Capabilities",
    "Configured",
    "ConfiguredWorkload",
    "ContentSink",
    "DirectoryWorkload",
    "DrilledWorkload",
    "FolderScan",
    "FolderWorkload",
    "Image",
    "ImageReader",
    "ImageWorkload",
    "LayoutSession",
    "ListingSource",
    "LocatingWorkload",
    "LogReader",
    "MovingImage",
    "RestoredItem",
    "RunningSession",
    "Session",
    "SpreadingWorkload",
    "StartedWorkload",
    "Verification",
    "WorkloadInfo",
]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a workload offers.

    Args:
        log: It ships a transaction log, so there are points between images.
        items: Single items can be listed and recovered.
        why_not: For each thing not offered, the sentence that says why.
    """

    log: bool
    items: bool
    why_not: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkloadInfo:
    """What ``discover`` found at a location.

    Args:
        location: The location in normal form (absolute path).
        description: One line for people: version, size, mode.
        default_name: A name to register it under when the person gave none.
    """

    location: str
    description: str
    default_name: str


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


# --- image workloads ---------------------------------------------------------------------------------


class ImageReader(Protocol):
    """One file of a frozen image. ``read`` may be called from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def page_size(self) -> int: ...

    @property
    def changed(self) -> NDArray[np.int64] | None:
        """Sorted 0-based numbers of the pages that may differ from the base image; ``None``: unknown."""
        ...

    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        """Bytes ``[offset, offset + length)`` of the image; shorter only at its end."""
        ...


class Image(Protocol):
    """A consistent image, frozen while the context manager that yields it is open.

    It may also have ``notes``: lines for people that its recovery point keeps.
    """

    @property
    def position(self) -> Position:
        """Where the log that continues this image starts."""
        ...

    @property
    def chain(self) -> bytes: ...

    @property
    def time_ns(self) -> int: ...

    @property
    def files(self) -> Sequence[ImageReader]: ...


def _no_content(name: str) -> bytes:
    raise KeyError(name)


def _no_heads(_: str, pages: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return pages[:0], np.empty((0, length), np.uint8)


@dataclass(frozen=True, slots=True)
class BaseImage:
    """The image that the next express full will be a delta of.

    Args:
        position: Its position.
        sizes: Size of every file by name, bytes.
        page_sizes: Page size of every file by name.
        log: Yields the stored segments after ``position``, so that a workload whose session has not seen
            them itself can learn from their ``index`` which pages changed.
        content: Reads one of its files whole; for small ones.
        heads: Reads the first bytes of pages of a file: takes its name, page numbers and how many bytes, and gives the
            numbers of those pages that can be had cheaply, and their bytes, ``uint8[n, length]``.
        tracked: The log leads from it to now. If not, only its layout is of use, and everything has to be compared.
        whole: Every page will be read, not only what changed.
    """

    position: Position
    sizes: Mapping[str, int]
    page_sizes: Mapping[str, int]
    log: Callable[[], Iterable[StoredSegment]]
    content: Callable[[str], bytes] = _no_content
    heads: Callable[[str, NDArray[np.int64], int], tuple[NDArray[np.int64], NDArray[np.uint8]]] = _no_heads
    tracked: bool = True
    whole: bool = False


class Session(Protocol):
    """A hold on a live data source: while it is open the source keeps all log not yet acknowledged.

    Not for use by several threads at once, except :attr:`ImageReader.read`. Use it as a context manager.
    """

    def __enter__(self) -> Session: ...

    def __exit__(self, *exc: object) -> None: ...

    def resume(self, end: LogEnd | None) -> None:
        """Continue after ``end``, the last durable position (``None``: nothing is kept yet).

        Raises:
            TrackingLost: The log between ``end`` and now is not all here; the message is the cause. The
                session stays usable: it starts a new, unconnected generation, and the next image must be compared.
        """
        ...

    def poll(self) -> bool:
        """Note what was committed since the last call, with the present time. Cheap; call it often.

        Returns:
            Whether there is log to ship.

        Raises:
            TrackingLost: The source was replaced, or its log was cut off, under the session.
            SourceUnusable: The source is gone.
        """
        ...

    def log(self) -> Iterator[LogSegment]:
        """Segments not yet yielded, up to the last poll. Each must be durable before the next is asked for."""
        ...

    def acknowledge(self, position: Position) -> None:
        """Everything up to ``position`` is durable in the pool: the source may recycle its log up to there."""
        ...

    def maintain(self, ship: Callable[[LogSegment], None]) -> None:
        """Let the source recycle its log when that is due (SQLite: checkpoint). ``ship`` makes a segment durable."""
        ...

    def image(self, base: BaseImage | None) -> AbstractContextManager[Image]:
        """Freeze a consistent image of now. Its position equals the end of the log shipped so far: ship first.

        With ``base`` the readers' ``changed`` says which pages may differ from it, or ``None`` if that is unknown.
        """
        ...


@runtime_checkable
class RunningSession(Protocol):
    """A session that yields its log in runs of segments, which are made durable together."""

    def log_runs(self) -> Iterator[Sequence[LogSegment]]:
        """As ``log``: a run must be durable before the next is asked for."""
        ...


@runtime_checkable
class BackupSession(Protocol):
    """A session with an engine that wants to know when a backup is complete, and deletes its log by itself then.

    The position of its images may lie before or behind the end of the log shipped so far: what lies before the
    position must be shipped before the image is committed.

    Attributes:
        ledger: What the engine did to its log; the caller sets it after opening and keeps what it is afterwards.
    """

    ledger: TruncationLedger

    def start_anew(self) -> None:
        """What was shipped cannot be continued: yield no log until an image, unconnected to it, is complete."""
        ...

    def complete_image(self, image: Image) -> None:
        """Report the backup as complete. Only while the image is open, and after its position was acknowledged and the
        log shipped that was complete by then.
        """
        ...


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
class Configured:
    """What a workload made of a location and its options.

    Args:
        info: As ``discover`` gives it.
        options: The options in normal form, to be kept with the source.
    """

    info: WorkloadInfo
    options: Mapping[str, Sequence[str]]


@runtime_checkable
class ConfiguredWorkload(Protocol):
    """A workload whose options say what a location means."""

    def configure(self, location: str, options: Mapping[str, Sequence[str]]) -> Configured:
        """Look at a location and check the options, without changing anything. Raises as ``discover`` does."""
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
class AdvisingWorkload(Protocol):
    """A workload that changes nothing at the source itself: it says what a person has to do."""

    def preparation(self, location: str) -> list[str]:
        """Lines in the source's own language, comments among them."""
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
class LayoutSession(Protocol):
    """A session whose images keep the layout of the one before, even when the log was lost.

    Attributes:
        keeps_layout: Always true; ``image`` is then given the image before with ``tracked`` false.
    """

    keeps_layout: bool

    def start_anew(self) -> None:
        """As in :class:`BackupSession`: yield no log until an image, unconnected to it, is complete."""
        ...


@runtime_checkable
class MovingImage(Protocol):
    """An image whose source changes while it is read, and whose position is known only when all of it was read."""

    def unexplained(self, name: str, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of pages of a file that differ from the image before: those that no log says to have changed."""
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


# --- folder workloads --------------------------------------------------------------------------------


class ContentSink(Protocol):
    """What a folder workload needs to put content into a vault. Thread-safe."""

    def put(self, data: bytes | bytearray | memoryview) -> bytes:
        """Store one chunk (at most 4 MiB); returns its id. Storing the same bytes again costs nothing."""
        ...

    def put_stream(self, data: bytes) -> StreamRef:
        """Store a byte string of any length."""
        ...


class ListingSource(Protocol):
    """What a folder workload needs to read of a vault."""

    def read_stream(self, ref: StreamRef) -> bytes: ...

    def read_chunk(self, chunk: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FolderScan:
    """What one walk of a folder tree made.

    Args:
        root: The root directory's entry, its listing stored.
        files: Number of files.
        size: Bytes of file content protected.
        changed: Bytes of content of files that are new or changed.
        read: Bytes read.
        notes: What was skipped, unreadable or vanished, one line each.
    """

    root: Entry
    files: int
    size: int
    changed: int
    read: int
    notes: tuple[str, ...]


@runtime_checkable
class FolderWorkload(Protocol):
    """A tree of files."""

    kind: str
    capabilities: Capabilities

    def discover(self, location: str) -> WorkloadInfo: ...

    def scan(
        self,
        source: DataSource,
        sink: ContentSink,
        previous: tuple[Entry, ListingSource] | None,
        *,
        check_content: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> FolderScan:
        """Walk the tree and store what is new.

        Args:
            source: What to walk; ``options["exclude"]`` and ``options["include"]`` are patterns.
            sink: Where content goes.
            previous: The last point's root, and where its listings are read.
            check_content: Read every file even if its metadata says that it is unchanged.
            progress: Called with the number of bytes dealt with since the last call.
        """
        ...
