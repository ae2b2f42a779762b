"""From a log file to a log segment of the pool: checked, chained to the one before, its recoverable places marked.

A mark stands behind every segment of a log. Its time is when the segment after it was begun, so that whoever asks for
a moment gets nothing that was done later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.ese.findings import Severity
from perdure.ese.headers.log import LOG_HEADER_SIZE, LogHeader
from perdure.ese.logs.files import Log, examine_logs
from perdure.ese.structures import Signature
from perdure.model.logs import MARK, LogSegment
from perdure.model.positions import Position
from perdure.workloads.exchange.folders import LogFolder
from perdure.workloads.exchange.indexes import LogIndex, PageChanges, changes_in, encode_index
from perdure.workloads.exchange.times import time_ns, times_ns
from perdure.workloads.exchange.tokens import StreamToken, encode_token, place_of, segment_of

__all__ = ["Break", "LogFile", "ShippedLog", "read_for_shipping", "read_log_files", "ship_log", "why_not_next"]

_SEGMENT = 4096
_TIMES = slice(16, 24)
_NEARLY_MS = 999_999
_SHADOWED = ("ese-segment-damaged", "ese-segment-torn")
"""Findings that the log's own redundancy has made good."""


@dataclass(frozen=True, slots=True)
class Break:
    """Why a log cannot be followed any further.

    Args:
        cause: For people: what happened.
        code: Stable identifier.
    """

    cause: str
    code: str


@dataclass(frozen=True)
class LogFile:
    """A log that was read whole and checked.

    Args:
        log: What was found.
        content: The file's bytes; a segment that could be corrected is.
        changed_ns: When the file was last written, nanoseconds since 1970 UTC.
        changes: What it changes in the database that it was read for, if it was read for one.
    """

    log: Log
    content: bytes
    changed_ns: int
    changes: PageChanges | None = None

    @property
    def header(self) -> LogHeader:
        assert self.log.header is not None
        return self.log.header

    @property
    def problem(self) -> str:
        """Why its records cannot all be trusted; empty if they can."""
        if self.log.readable and self.log.header is not None:
            unfinished = self.log.records is not None and self.log.records.unfinished and self.log.name.generation
            short = len(self.content) < self.header.file_size
            if not unfinished and not short:
                return ""
        worst = [one for one in self.log.findings if one.severity is Severity.DAMAGE]
        return str(worst[0]) if worst else f"{self.log.file} cannot be read to its end"

    @property
    def corrected(self) -> str:
        """What its own redundancy made good; empty if nothing had to be."""
        return "; ".join(str(one) for one in self.log.findings if one.code in _SHADOWED) if not self.problem else ""

    @cached_property
    def places(self) -> NDArray[np.uint64]:
        """The place behind each of its segments; of a version 7 log, behind the whole."""
        if self.log.segments is None:
            return np.array([place_of(self.header.sectors, 0)], np.uint64)
        segments = self.log.segments.content
        if not len(segments):
            return np.array([place_of(self.header.header_sectors, 0)], np.uint64)
        used = _bytes_used(segments)
        if self.log.records is not None:
            # A record may end with zeros, and a place inside of it would belong to neither side.
            begins = self.log.records.places.astype(np.int64)
            ends = begins + self.log.records.sizes.astype(np.int64)
            inside = begins // _SEGMENT == (ends - 1) // _SEGMENT
            rows = begins[inside] // _SEGMENT - self.log.segments.first
            np.maximum.at(used, rows, ends[inside] - begins[inside] // _SEGMENT * _SEGMENT)
        numbers = np.arange(self.log.segments.first, self.log.segments.first + len(segments), dtype=np.uint64)
        places: NDArray[np.uint64] = numbers << np.uint64(16) | used.astype(np.uint64)
        return places

    def checksums_before(self, segment: int) -> int:
        """XOR of the checksums of all segments before one."""
        if self.log.segments is None:
            return 0
        some = self.log.segments.content[: max(0, segment - self.log.segments.first), :8]
        stored = np.ascontiguousarray(some).view("<u8")
        return int(np.bitwise_xor.reduce(stored[:, 0])) if len(stored) else 0


@dataclass(frozen=True, slots=True)
class ShippedLog:
    """A log on its way into the pool.

    Args:
        token: The place behind it.
        segment: What is stored; ``None`` if the pool has all of it.
    """

    token: StreamToken
    segment: LogSegment | None


def read_log_files(paths: list[Path]) -> list[LogFile]:
    """Read and check logs; best some sixteen at a time.

    Raises:
        OSError: One cannot be read.
    """
    contents = [path.read_bytes() for path in paths]
    times = [path.stat().st_mtime_ns for path in paths]
    found = examine_logs(list(zip(paths, contents, strict=True)))
    return [
        LogFile(log, _corrected(log, content), time) for log, content, time in zip(found, contents, times, strict=True)
    ]


def read_for_shipping(paths: list[Path], database: Signature) -> list[LogFile]:
    """The same, with all that takes long to find out before a log of this database is shipped.

    Raises:
        OSError: One cannot be read.
    """
    files = [replace(file, changes=_changes(file, database)) for file in read_log_files(paths)]
    for file in files:
        if file.log.header is not None:
            file.places  # noqa: B018 - found once, and kept
    return files


def why_not_next(token: StreamToken, file: LogFile) -> Break | None:
    """Why a log does not continue a place; ``None`` if it does."""
    header, wanted = file.log.header, token.next_generation
    name = file.log.file
    if header is None:
        return Break(f"{file.problem}; recovery cannot pass it", code="log-damaged")
    if header.signature != Signature(token.stream):
        return Break(
            f"{name} belongs to another log stream ({header.signature}) than the database "
            f"({Signature(token.stream)}), although its name is right",
            code="log-foreign",
        )
    if header.generation != wanted:
        return Break(
            f"{name} holds generation {header.generation:X}, not {wanted:X}: it was renamed or copied over another",
            code="log-foreign",
        )
    if token.closed:
        if header.previous_created.raw != token.created:
            return Break(
                f"{name} does not continue the log {token.generation:X} that is in the pool: the stream went on from "
                "another log of that number, as after a failover that lost log",
                code="log-diverged",
            )
        if header.holds_previous_segments and header.previous_segments not in (0, token.checksums):
            return Break(
                f"{name} follows another content of log {token.generation:X} than the pool has", code="log-diverged"
            )
        return None
    if header.created.raw != token.created:
        return Break(
            f"{name} is not the log {wanted:X} that the pool has the beginning of: that log was lost and begun anew, "
            "as after a failover that lost log",
            code="log-diverged",
        )
    segment, _ = segment_of(token.place)
    if file.checksums_before(segment) != token.checksums or int(file.places[-1]) < token.place:
        return Break(f"{name} no longer begins with what the pool has of it", code="log-diverged")
    return None


def ship_log(
    token: StreamToken,
    file: LogFile,
    logs: LogFolder,
    *,
    closed: bool,
    ends_ns: int,
    after: Position | None = None,
) -> ShippedLog:
    """Make the segment that carries the pool's log on with a file that continues it.

    Args:
        token: Where the pool's log ends.
        file: The next log, see :func:`why_not_next`.
        logs: The folder that it is from.
        closed: Whether it is complete.
        ends_ns: A moment by which everything in it had been done, nanoseconds since 1970 UTC.
        after: The position that the segment continues; the token's unless given.
    """
    places = file.places
    place = int(places[-1])
    closed_checksums = file.log.segments.checksums if file.log.segments is not None else 0
    following = StreamToken(
        database=token.database,
        stream=token.stream,
        offset=token.offset,
        generation=file.header.generation,
        created=file.header.created.raw,
        place=place,
        closed=closed,
        checksums=closed_checksums if closed else file.checksums_before(segment_of(place)[0]),
        repairs=token.repairs,
    )
    if following.position <= token.position:
        return ShippedLog(following, None)
    marks = _marks(file, places, ends_ns)
    if following.generation == token.generation:
        marks = marks[marks["place"] > token.place]
    changes = file.changes if file.changes is not None else _changes(file, Signature(token.database))
    index = LogIndex(1, logs.base, logs.digits, following.generation, closed, changes)
    segment = LogSegment(
        after=after or token.position,
        last=following.position,
        marks=marks,
        chain=encode_token(following),
        index=encode_index(index),
        blocks=(file.content,),
    )
    return ShippedLog(following, segment)


def _changes(file: LogFile, database: Signature) -> PageChanges:
    return PageChanges(known=False) if file.problem else changes_in(file.log, database)


def _marks(file: LogFile, places: NDArray[np.uint64], ends_ns: int) -> NDArray[np.void]:
    marks = np.empty(len(places), MARK)
    marks["place"] = places
    begun = time_ns(file.header.created)
    if file.log.segments is not None and len(file.log.segments.content):
        starts = times_ns(np.ascontiguousarray(file.log.segments.content[:, _TIMES]))
        # The engine's clock counts milliseconds and rounds down; a moment must never seem earlier than it was.
        marks["time_ns"][:-1] = np.where(starts[1:] > 0, starts[1:] + _NEARLY_MS, begun)
        begun = max(begun, int(starts[-1]))
    marks["time_ns"][-1] = max(begun, ends_ns)
    marks["time_ns"] = np.maximum.accumulate(marks["time_ns"])
    return marks


def _bytes_used(segments: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Bytes of each segment up to the last that is not zero."""
    words = np.ascontiguousarray(segments).view("<u8")
    last = np.full(len(words), words.shape[1] - 1)
    # All but a few are used to their end.
    short = np.flatnonzero(words[:, -1] == 0)
    last[short] -= np.argmax(words[short, ::-1] != 0, axis=1)
    octets = words[np.arange(len(words)), last].view(np.uint8).reshape(-1, 8)
    used: NDArray[np.int64] = last * 8 + 8 - np.argmax(octets[:, ::-1] != 0, axis=1)
    return used


def _corrected(log: Log, content: bytes) -> bytes:
    """The file with the segments as they were written."""
    if log.segments is None or not any(one.code in _SHADOWED for one in log.findings):
        return content
    used = log.segments.content.tobytes()
    start = log.segments.first * _SEGMENT if log.segments.first else LOG_HEADER_SIZE
    return content[:start] + used + content[start + len(used) :]
