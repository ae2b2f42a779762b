"""The log stream that an engine writes: records into segments, segments into generations."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from perdure.ese.structures import LogPosition
from perdure.testing.information_store.clock import Clock
from perdure.testing.information_store.disk import Disk, DiskFile
from perdure.testing.information_store.header_fields import LogFields, log_time_bytes
from perdure.testing.information_store.log_records import padding
from perdure.testing.information_store.log_segments import (
    RECORDS_START,
    SEGMENT_SIZE,
    empty_segment,
    sealed_segments,
    unused_segments,
)

__all__ = ["SEGMENTS_PER_LOG", "LogStream", "PreviousLog", "log_position", "place_of"]

SEGMENTS_PER_LOG = 256
"""Segments of a log file of 1 MiB, its header included."""

_SHORTEST_FRAGMENT_ROOM = 32
_SHORTEST_PADDING = 5
_FRAGMENT_BEGIN = struct.Struct("<BIH")
_FRAGMENT = struct.Struct("<BH")


def log_position(place: int) -> LogPosition:
    """The position that a place stands for: places are positions packed into one number, in the same order."""
    return LogPosition(place >> 32, place >> 16 & 0xFFFF, place & 0xFFFF)


def place_of(position: LogPosition) -> int:
    """A position packed into one number."""
    return position.generation << 32 | position.sector << 16 | position.offset


@dataclass(frozen=True, slots=True)
class PreviousLog:
    """What a new log says of the one before it.

    Args:
        generation: Its number; 0 if there is none.
        created: When it was made.
        checksums: XOR of the checksums of its segments.
    """

    generation: int = 0
    created: bytes = bytes(8)
    checksums: int = 0


@dataclass(eq=False, repr=False)
class LogStream:
    """Writes one stream.

    Records are kept in memory until :meth:`flush`. The last, partly filled segment is written again whenever it has
    grown, with a copy of it in the next sector, so that a torn write never takes what was durable before.

    Args:
        disk: Where the files lie.
        folder: Of the logs.
        base: First three letters of their names.
        clock: What time it is.
        header: Makes the header of a new log from its number, when it is made, and the log before.
        before_generation: Called with number and time of a new log before any record can be in it.
        segments: Of a log file, its header included.
    """

    disk: Disk
    folder: Path
    base: str
    clock: Clock
    header: Callable[[int, bytes, PreviousLog], LogFields]
    before_generation: Callable[[int, bytes], None]
    segments: int = SEGMENTS_PER_LOG
    generation: int = 0
    created: bytes = bytes(8)
    end: int = 0
    """Place behind the last record."""
    flushed: int = 0
    """Place behind the last record that is durable."""
    written_bytes: int = 0
    _file: DiskFile | None = None
    _body: bytearray = field(default_factory=bytearray)
    _sector: int = 1
    _base_place: int = 0
    _full: list[bytearray] = field(default_factory=list)
    _written: tuple[int, int] = (0, 0)
    _checksums: int = 0

    @property
    def current_path(self) -> Path:
        """The log that is being written."""
        return self.folder / f"{self.base}.log"

    def path_of(self, generation: int) -> Path:
        """Where a closed log lies."""
        return self.folder / f"{self.base}{generation:08X}.log"

    def begin(self, previous: PreviousLog) -> None:
        """Begin with the generation after ``previous``; its file has its number in its name already."""
        self._begin_generation(previous)

    def append(self, record: bytes) -> int:
        """Add a record.

        Returns:
            Its place.
        """
        body = self._body
        at = len(body)
        if at + len(record) <= SEGMENT_SIZE:
            body += record
            place = self._base_place | at
            self.end = place + len(record)
            return place
        return self._append_in_parts(record)

    def append_together(self, first: bytes, second: bytes) -> int:
        """Add two records that must lie in the same generation, whose first may not end the log."""
        self._make_room(len(first) + len(second))
        self.append(first)
        return self.append(second)

    def flush(self) -> None:
        """Make every record durable."""
        if self.flushed == self.end:
            return
        self._write(self._full + ([self._body] if len(self._body) > RECORDS_START else []))
        self.flushed = self.end

    def roll(self) -> None:
        """Close the current generation, filled up so that nothing is ever added, and begin the next."""
        room = SEGMENT_SIZE - len(self._body)
        if len(self._body) > RECORDS_START and room >= _SHORTEST_PADDING:
            self.append(padding(room))
        self._close_generation()

    def close(self) -> None:
        """Make everything durable and let go of the file."""
        self.flush()
        if self._file is not None:
            self.disk.close(self._file)
            self._file = None

    def _append_in_parts(self, record: bytes) -> int:
        self._make_room(len(record))
        if SEGMENT_SIZE - len(self._body) < _SHORTEST_FRAGMENT_ROOM:
            self._next_segment()
        place = self._base_place | len(self._body)
        room = SEGMENT_SIZE - len(self._body)
        if len(record) > room:
            here = room - _FRAGMENT_BEGIN.size
            self._body += _FRAGMENT_BEGIN.pack(76, len(record), here) + record[:here]
            record = record[here:]
            while record:
                self._next_segment()
                here = min(len(record), SEGMENT_SIZE - RECORDS_START - _FRAGMENT.size)
                self._body += _FRAGMENT.pack(77, here) + record[:here]
                record = record[here:]
        else:
            self._body += record
        self.end = self._base_place | len(self._body)
        return place

    def _make_room(self, size: int) -> None:
        """Begin the next generation if the current one cannot take ``size`` more bytes, in fragments if need be."""
        payload = SEGMENT_SIZE - RECORDS_START - _FRAGMENT.size
        needed = -(-(size + 2 * _SHORTEST_FRAGMENT_ROOM) // payload)
        # The last sector stays free for the copy of the last segment.
        if self._sector + needed >= self.segments - 1:
            self._close_generation()

    def _next_segment(self) -> None:
        self._full.append(self._body)
        self._sector += 1
        self._start_segment()

    def _start_segment(self) -> None:
        self._body = empty_segment(self.generation, self._sector, log_time_bytes(self.clock()))
        self._base_place = self.generation << 32 | self._sector << 16

    def _write(self, bodies: list[bytearray]) -> None:
        if not bodies:
            return
        assert self._file is not None
        first = self._sector - len(self._full)
        content, checksums = sealed_segments(bodies, first)
        for checksum in checksums[: len(self._full)]:
            self._checksums ^= checksum
        grown_over_its_copy = self._written[0] == first and len(bodies) > 1
        if grown_over_its_copy:
            # The copy of this segment lies where the next one goes: this one has to be durable before.
            self._put(first, content[:SEGMENT_SIZE])
            first, content = first + 1, content[SEGMENT_SIZE:]
        partly = len(bodies) > len(self._full)
        self._put(first, content + (content[-SEGMENT_SIZE:] if partly else b""))
        self._written = (self._sector, len(self._body)) if partly else (0, 0)
        self._full = []

    def _put(self, sector: int, content: bytes) -> None:
        assert self._file is not None
        self._file.write(sector * SEGMENT_SIZE, content)
        self._file.sync()
        self.written_bytes += len(content)

    def _close_generation(self) -> None:
        assert self._file is not None
        if len(self._body) > RECORDS_START:
            _, (checksum,) = sealed_segments([self._body], self._sector)
        else:
            checksum = 0
        self.flush()
        previous = PreviousLog(self.generation, self.created, self._checksums ^ checksum)
        closed, self._file = self._file, None
        self._begin_generation(previous, closed)

    def _begin_generation(self, previous: PreviousLog, closed: DiskFile | None = None) -> None:
        generation, created = previous.generation + 1, self._later_than(previous.created)
        formatting = self.folder / f"{self.base}tmp.log"
        file = self.disk.open(formatting)
        content = self.header(generation, created, previous).encode() + unused_segments(self.segments - 1)
        file.write(0, content)
        file.sync()
        self.before_generation(generation, created)
        if closed is not None:
            self.disk.rename(closed, self.path_of(previous.generation))
            self.disk.close(closed)
        self.disk.rename(file, self.current_path)
        self.generation, self.created, self._file = generation, created, file
        self._sector, self._full, self._written, self._checksums = 1, [], (0, 0), 0
        self._start_segment()
        self.end = self.flushed = self._base_place | RECORDS_START

    def _later_than(self, created: bytes) -> bytes:
        """The time of a new log, which differs from that of the log before: the chain tells logs apart by it."""
        while (now := log_time_bytes(self.clock())) == created:
            pass
        return now
