"""Data sources and recovery points, as they are recorded in the pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from perdure.model.positions import Position

__all__ = ["DataSource", "Hold", "ImageFile", "KnownDamage", "PointKind", "RecoveryPoint", "StreamRef"]


@dataclass(frozen=True, slots=True)
class DataSource:
    """One protectable thing, registered in a pool.

    Args:
        id: Stable random identifier (32 hexadecimal digits); names this source's objects in the pool.
        name: What people call it; unique in the pool.
        workload: Kind of source, for example ``sqlite``.
        location: Where it lives, in the workload's own form (a path).
        options: Workload and schedule options, all text, for example ``exclude`` patterns.
        registered_ns: When it was registered, nanoseconds since 1970 UTC.
    """

    id: str
    name: str
    workload: str
    location: str
    options: dict[str, list[str]] = field(default_factory=dict)
    registered_ns: int = 0


class PointKind(StrEnum):
    """Kinds of recovery points that have a record of their own."""

    EXPRESS_FULL = "express full"
    INCREMENTAL = "incremental"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class StreamRef:
    """A byte string of any length kept as a run of chunks (an encoded map, a directory listing).

    Args:
        chunks: Chunk ids (32 bytes each), in order.
        size: Bytes in all.
    """

    chunks: tuple[bytes, ...]
    size: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of an image: its exact base map and deltas.

    Args:
        name: Name inside the image, for example ``database``.
        size: Bytes.
        page_size: Granularity of changes in bytes.
        base: The encoded base extent map.
        deltas: The encoded deltas over it, oldest first; at most 32.
        extents: Number of extents in the resolved map.
    """

    name: str
    size: int
    page_size: int
    base: StreamRef
    deltas: tuple[StreamRef, ...] = ()
    extents: int = 0


@dataclass(frozen=True, slots=True)
class RecoveryPoint:
    """A recovery-point record: the only commit point of a pool.

    Args:
        number: Counts the records of one source from 1; part of the record's object name.
        source: Id of the data source.
        kind: Express full (an image) or file (a tree).
        time_ns: The moment that the point shows, nanoseconds since 1970 UTC.
        position: Where the log that continues this image starts; ``None`` for workloads without log.
        chain: The workload's own continuity token at ``position`` (opaque to everybody else).
        files: The image, for workloads that have one.
        tree: The root directory's entry, for workloads that keep folder trees (see perdure.model.listings).
        size: Bytes protected by this point.
        changed: Bytes that had changed since the point before, as far as the workload knows.
        stored: Bytes that this point added to the pool (maps and trees included).
        read: Bytes read from the source to make it.
        cause: Why it was made: ``first replica``, ``schedule``, ``tracking lost: …``.
        notes: What a person should know: entries skipped or unreadable.
        committed_ns: When the record was written.
        inconsistent_ns: Nanoseconds for which the replica had been inconsistent, since the first replica until this
            point; retention does not count them.
    """

    number: int
    source: str
    kind: PointKind
    time_ns: int
    position: Position | None = None
    chain: bytes = b""
    files: tuple[ImageFile, ...] = ()
    tree: StreamRef | None = None
    size: int = 0
    changed: int = 0
    stored: int = 0
    read: int = 0
    cause: str = ""
    notes: tuple[str, ...] = ()
    committed_ns: int = 0
    inconsistent_ns: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold on one recovery point.

    Args:
        source: Id of the data source.
        number: The point's number.
        reason: Why; may be empty.
        since_ns: When it was placed, nanoseconds since 1970 UTC.
    """

    source: str
    number: int
    reason: str = ""
    since_ns: int = 0


@dataclass(frozen=True, slots=True)
class KnownDamage:
    """What is known to be damaged of one source.

    Args:
        points: Numbers of the points that do not recover whole, each with the words that say why.
        log: Object names of damaged log segments, each with the words that say how.
    """

    points: dict[int, str] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.points or self.log)
