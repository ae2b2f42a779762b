"""Transaction logs written by the rules of the format: for tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from perdure.ese.checksums import xor32
from perdure.ese.logs.sectors import CHECKSUM_RECORD_SIZE, checksum_record
from perdure.ese.logs.segments import SEGMENT_HEADER, SEGMENT_SIZE
from perdure.ese.repair import sealed_page

__all__ = [
    "LogMaker",
    "attach_entry",
    "checkpoint_bytes",
    "example_records",
    "example_times",
    "log_time",
    "node_record",
    "page_record",
    "sector_log_bytes",
    "segment_checksums",
    "stream_signature",
]

EXAMPLE_BEGINNING = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)

_ECC = 0x2000
_FRAGMENT_BEGIN, _FRAGMENT = 76, 77
_SHORTEST_FRAGMENT_ROOM = 32


def log_time(moment: datetime) -> bytes:
    """A moment as the engine stores it."""
    milliseconds = moment.microsecond // 1000
    return bytes(
        [
            moment.second,
            moment.minute,
            moment.hour,
            moment.day,
            moment.month,
            moment.year - 1900,
            1 | (milliseconds & 0x7F) << 1,
            milliseconds >> 7 << 1,
        ]
    )


def stream_signature(number: int, created: datetime) -> bytes:
    """The 28 bytes of a signature."""
    return struct.pack("<I", number) + log_time(created) + bytes(16)


def attach_entry(dbid: int, signature: bytes, path: str) -> bytes:
    """One entry of an attach list."""
    name = path.encode("utf-16-le") + b"\0\0"
    return struct.pack("<BBHQII", dbid, 0x20, len(name), 0, 0, 0) + bytes(16) + signature + name


def page_record(kind: int, dbid: int, page: int, body: bytes = b"", *, dbtime: int = 1, before: int = 0) -> bytes:
    """A record that begins with the head of a page."""
    return struct.pack("<BHBIQQIBHB", kind, 1, dbid, page, dbtime, before, 4, 1, 0, 4) + body


def node_record(kind: int, dbid: int, page: int, body: bytes = b"", *, dbtime: int = 1, before: int = 0) -> bytes:
    """A record that begins with the head of a node."""
    return page_record(kind, dbid, page, struct.pack("<III", 4, page, 9) + body, dbtime=dbtime, before=before)


@dataclass(frozen=True)
class LogMaker:
    """Makes the logs of one stream.

    Args:
        signature: Identity of the stream, 28 bytes.
        sectors: Segments of a file, its header included.
        version: Major, minor, major update, minor update.
        flags: Of the header.
        attached: The attach list.
    """

    signature: bytes
    sectors: int = 32
    version: tuple[int, int, int, int] = (8, 4000, 60, 140)
    flags: int = 0
    attached: bytes = field(default=b"")

    def log(
        self,
        records: Sequence[bytes],
        generation: int,
        created: bytes,
        *,
        previous_created: bytes = bytes(8),
        previous_segments: int = 0,
        shadow: bool = False,
        fill: bytes = b"\0",
    ) -> bytes:
        """One log file.

        Args:
            records: What it holds; those that do not fit into the rest of a segment are cut into fragments.
            generation: Its number.
            created: When it was made, 8 bytes.
            previous_created: When the log before was made.
            previous_segments: XOR of the checksums of the segments of the log before.
            shadow: Whether the last segment is written twice.
            fill: What unused segments repeat.
        """
        header = self._header(generation, created, previous_created, previous_segments)
        segments = list(_segments(records, generation, created))
        if shadow and segments:
            segments.append(segments[-1])
        assert len(segments) < self.sectors, "the records do not fit into the file"
        used = header + b"".join(segments)
        rest = self.sectors * SEGMENT_SIZE - len(used)
        return used + fill * (rest // len(fill))

    def chain(self, contents: Sequence[Sequence[bytes]], first: int, created: Sequence[bytes]) -> list[bytes]:
        """Logs that continue each other, one for every list of records."""
        logs: list[bytes] = []
        for index, records in enumerate(contents):
            logs.append(
                self.log(
                    records,
                    first + index,
                    created[index],
                    previous_created=created[index - 1] if index else bytes(8),
                    previous_segments=segment_checksums(logs[-1]) if index else 0,
                    shadow=index == len(contents) - 1,
                )
            )
        return logs

    def _header(self, generation: int, created: bytes, previous_created: bytes, previous_segments: int) -> bytes:
        major, minor, update_major, update_minor = self.version
        sector, head = (SEGMENT_SIZE, 1) if major >= 8 else (512, 8)
        header = bytearray(SEGMENT_SIZE)
        struct.pack_into("<iHHHH", header, 4, generation, sector, head, self.sectors * SEGMENT_SIZE // sector, 0x8000)
        header[16:24], header[24:32] = created, previous_created
        struct.pack_into("<III", header, 32, major, minor, update_major)
        header[44:72] = self.signature
        header[639] = self.flags
        struct.pack_into("<IBQII", header, 648, update_minor, 0, previous_segments, 0, 0)
        struct.pack_into("<I", header, 667, 3)
        header[671 : 671 + len(self.attached)] = self.attached
        struct.pack_into("<I", header, 0, xor32(bytes(header)))
        return bytes(header)


def example_times(count: int) -> list[bytes]:
    """Moments a minute apart."""
    return [log_time(EXAMPLE_BEGINNING + timedelta(minutes=index)) for index in range(count)]


def example_records(count: int = 60, size: int = 700) -> list[bytes]:
    """Transactions that each insert about this many bytes, into pages from 100 on, and a split of page 299."""
    found: list[bytes] = []
    for number in range(count):
        data = bytes([number % 251 + 1]) * (size + 13 * (number % 7))
        body = struct.pack("<HHH", 4, 2, len(data)) + b"suffpr" + data
        found.append(struct.pack("<BHBI", 8, 1, 0x10, number))
        found.append(node_record(29, 1, 100 + number, body, dbtime=number + 1, before=number))
        found.append(struct.pack("<BHBI", 9, 1, 0, number))
    found.append(struct.pack("<BHQ", 11, 1, 77))
    pages = struct.pack("<IIQIQII", 300, 301, 5, 302, 6, 31, 9)
    found.append(page_record(62, 1, 299, pages.ljust(78, b"\0")))
    found.append(struct.pack("<BHQ", 12, 1, 77))
    return found


def segment_checksums(log: bytes) -> int:
    """XOR of the checksums of all segments of a log that hold records, found by their headers alone."""
    total = 0
    for at in range(SEGMENT_SIZE, len(log), SEGMENT_SIZE):
        (sector,) = struct.unpack_from("<H", log, at + 10)
        if sector != at // SEGMENT_SIZE:
            break
        total ^= int.from_bytes(log[at : at + 8], "little")
    return total


def checkpoint_bytes(signature: bytes, generation: int, sector: int, offset: int) -> bytes:
    """A checkpoint file."""
    copy = bytearray(SEGMENT_SIZE)
    struct.pack_into("<HHi", copy, 12, offset, sector, generation)
    copy[20:48] = signature
    struct.pack_into("<I", copy, 667, 4)
    struct.pack_into("<I", copy, 0, xor32(bytes(copy)))
    return bytes(copy) * 2


def sector_log_bytes(maker: LogMaker, bodies: Sequence[bytes], generation: int, created: bytes) -> bytes:
    """A version 7 log: a checksum record before every body, each body a whole number of sectors less that record."""
    log = bytearray(maker.log([], generation, created))
    at, sector = SEGMENT_SIZE, 512
    for index, body in enumerate(bodies):
        end = at + CHECKSUM_RECORD_SIZE + len(body)
        log[at + CHECKSUM_RECORD_SIZE : end] = body
        next_ = len(body) if index + 1 < len(bodies) else 0
        log[at : at + CHECKSUM_RECORD_SIZE] = checksum_record(
            bytes(log), at, generation, sector, forward=len(body), next_=next_
        )
        at = end
    return bytes(log)


def _segments(records: Sequence[bytes], generation: int, started: bytes) -> Iterator[bytes]:
    """Records cut into sealed segments."""
    sector, body = 1, bytearray()
    for record in records:
        rest, begun = record, False
        while rest or not begun:
            room = SEGMENT_SIZE - SEGMENT_HEADER - len(body)
            if not begun and len(record) <= room:
                body += record
                break
            if not begun and room < _SHORTEST_FRAGMENT_ROOM:
                yield _segment(body, sector, generation, started)
                sector, body = sector + 1, bytearray()
                continue
            head = struct.pack("<BH", _FRAGMENT, 0) if begun else struct.pack("<BIH", _FRAGMENT_BEGIN, len(record), 0)
            part, rest = rest[: room - len(head)], rest[room - len(head) :]
            body += head[:-2] + struct.pack("<H", len(part)) + part
            begun = True
            if rest:
                yield _segment(body, sector, generation, started)
                sector, body = sector + 1, bytearray()
    if body:
        yield _segment(body, sector, generation, started)


def _segment(body: bytearray, sector: int, generation: int, started: bytes) -> bytes:
    head = struct.pack("<QHHi8s12sI", 0, 0, sector, generation, started, bytes(12), _ECC)
    content = (head + body).ljust(SEGMENT_SIZE, b"\0")
    return sealed_page(content, sector)
